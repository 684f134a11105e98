"""What one more network in the student's steps costs: a peer, as a share of a step of the student alone.

    OMP_NUM_THREADS=1 python benchmarks/peers.py [--rounds 15] [--steps 20] [--data digits]

Steps of the objective, backward and optimizer, without Lightning: the student alone on labels, and with K − 1 peers by
each scheme, on the same batches, interleaved; medians of CPU time. Printed is (with peers − alone) / alone / (K − 1).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir

from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir

STUDENT = ("model@student=vgg4", "model@teacher=vgg4", "student.net.widths=[16,32,64]")
SCHEMES = {
    "alone": ("loss=hard",),
    "dml": ("sources=peers", "loss=online/dml"),
    "kdcl, minlogit": ("sources=peers", "loss=online/kdcl"),
    "kdcl, linear": ("sources=peers", "loss=online/kdcl", "loss.rule=linear"),
    "codistillation": ("sources=stale_peers", "loss=online/codistillation", "loss.burn_in=0"),
}


def steps(overrides: tuple[str, ...], count: int) -> Callable[[], float]:
    """Returns a function that takes ``count`` steps and returns their CPU time."""
    stage = factory.stage_config(compose("distill", [*STUDENT, *overrides]), "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.dry_run(data)
    module.objective.on_epoch_start(0, 1)
    optimizer = module.optimizer(module.parameter_groups())
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(8), strict=False)]

    def run() -> float:
        begun = time.process_time()
        for number in range(count):
            optimizer.zero_grad()
            module.objective(module.signals(batches[number % len(batches)]))[0].backward()
            optimizer.step()
            for source in module.sources().values():
                source.after_step()
        return time.process_time() - begun

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--data", default="digits")
    arguments = parser.parse_args()
    resolvers.register()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        runs = {
            name: steps((*overrides, f"data={arguments.data}"), arguments.steps) for name, overrides in SCHEMES.items()
        }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            found[name].append(run())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| scheme | ms a step | a peer, in steps of the student |\n|---|---|---|")
    for name, times in found.items():
        each = [with_peers / base - 1 for with_peers, base in zip(times, found["alone"], strict=True)]
        share = "–" if name == "alone" else f"{statistics.median(each):.2f}"
        print(f"| {name} | {1e3 * statistics.median(times) / arguments.steps:.2f} | {share} |")


if __name__ == "__main__":
    main()
