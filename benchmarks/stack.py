"""One step of many students as one against as many steps of one: where ``launcher=stacked`` pays.

    python benchmarks/stack.py [--seeds 4] [--cells 4] [--rounds 5] [--steps 10] [--device cpu]
                               [--data ../shared/data] [override …]

Overrides choose the pair, by default cnn → dense on MNIST; the teacher's logits are random and lie in memory. Each step
is batch, objective, backward and update; interleaved, the best of the rounds; one student has one thread, then all. On
a GPU (``--device gpu``) the batches are there before the step.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir

import tutelage  # noqa: F401  (before torch: how its threads wait)

# isort: split
import torch
from torch import Tensor

from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir
from tutelage.seeding import reseed
from tutelage.sources.recorded import Recorded
from tutelage.stacked.data import StackedData
from tutelage.stacked.stack import Stack, settings_of
from tutelage.types import Batch

PAIR = ("data=mnist", "model@teacher=cnn", "model@student=dense")


def endless(loader: Callable[[], Iterable[Batch]], device: torch.device) -> Iterator[Batch]:
    if device.type == "cuda":
        few = itertools.islice(loader(), 20)
        yield from itertools.cycle([{name: x.to(device) for name, x in batch.items()} for batch in few])
    while True:
        yield from loader()


def timed(step: Callable[[], None], steps: int) -> float:
    """Milliseconds a step."""
    step()  # a device's kernels are chosen at the first
    wait()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - begun) / steps * 1e3


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("seeds", 4), ("cells", 4), ("rounds", 5), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    given, overrides = parser.parse_known_args()
    resolvers.register()
    modules, seeds, data = [], [], None
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    for seed in range(given.seeds):
        for cell in range(given.cells):
            own = [f"seed={seed}", f"loss.temperature={1 + cell}", f"paths.data={Path(given.data).absolute()}"]
            with initialize_config_dir(conf_dir(), version_base="1.3"):
                stage = factory.stage_config(compose("distill", overrides=[*PAIR, *overrides, *own]), "student")
            data = data or factory.data(stage)
            keys = torch.cat([data.splits[split].keys for split in ("train", "val")])
            teaching = {"teacher": Recorded(keys, torch.randn(len(keys), data.num_classes))}
            modules.append(factory.distillation_module(stage, data, teaching, None))
            modules[-1].dry_run(data)
            seeds.append(seed)
    assert data is not None
    stack = Stack(modules, seeds, teaching, data.sample(2)["input"]).train().to(device)
    modules[0].to(device)
    together = modules[0].optimizer(stack.parameter_groups([settings_of(module) for module in modules])[0])
    alone = modules[0].optimizer([p for p in modules[0].parameters() if p.requires_grad])
    modules[0].train()
    batches, of_all = endless(data.train_dataloader, device), StackedData(data, stack.seeds)
    many = endless(of_all.train_dataloader, device)

    def one() -> None:
        batch = next(batches)
        reseed(device, 0, "step", 0, 0, 0)
        update(alone, modules[0].objective(modules[0].signals(batch))[0])

    def all_of_them() -> None:
        batch = next(many)
        masks = stack.dropout.draw(0, 0, batch["input"].shape[1], batch["input"])
        update(together, stack.losses(batch, masks)[0].sum())

    threads = torch.get_num_threads()
    best = dict.fromkeys((f"one student, {n} threads" for n in (1, threads)), float("inf")) | {"stack": float("inf")}
    for _ in range(given.rounds):
        for n in (1, threads):
            torch.set_num_threads(n)
            name = f"one student, {n} threads"
            best[name] = min(best[name], timed(one, given.steps))
        best["stack"] = min(best["stack"], timed(all_of_them, given.steps) / len(modules))
    print(", ".join(f"{name}: {ms:.3f} ms" for name, ms in best.items()), f"a job ({len(modules)} together)")
    ratio = min(ms for name, ms in best.items() if name != "stack") / best["stack"]
    print(f"the stack is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
