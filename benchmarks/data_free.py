"""DAFL's training step in Tutelage against a loop by hand, at the size of experiment=dafl_mnist.

    OMP_NUM_THREADS=1 python benchmarks/data_free.py [--rounds 5] [--steps 30] --data <folder with MNIST/raw>

Tutelage's steps are those of Lightning's Trainer, between the first and the last hook, without validation; the loop is
one backward pass of the generator's and the student's losses together, as in the authors' code, with the same networks,
batch size and optimizers. Interleaved; CPU time. Printed is the median of the ratios.
"""

import argparse
import copy
import statistics
import time
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor

from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir
from tutelage.config.turns import training_data


class Clock(L.Callback):
    """Measures the CPU time of a training's steps."""

    seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Starts."""
        self.seconds = -time.process_time()

    def on_train_end(self, *_: Any) -> None:
        """Stops."""
        self.seconds += time.process_time()


def in_tutelage(module: Any, data: Any) -> float:
    """Returns the CPU time of an epoch."""
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return clock.seconds


def by_hand(module: Any, steps: int, count: int) -> float:
    """Returns the CPU time of as many steps of copies of the module's networks."""
    generator, student = copy.deepcopy(module.generator).train(), copy.deepcopy(module.student.net.net).train()
    teacher = copy.deepcopy(module.sources()["teacher"].net.net)
    features: list[Tensor] = []
    teacher.embedding.register_forward_hook(lambda *found: features.append(found[2]))
    optimizers = module.turns.optimizer(generator.parameters()), module.optimizer(student.parameters())
    begun = time.process_time()
    for _ in range(steps):
        features.clear()
        images = generator(torch.randn(count, generator.latents))
        z = teacher(images)
        p = z.softmax(1).mean(0)
        loss = F.cross_entropy(z, z.argmax(1)) + 5 * (p * p.log10()).sum() - 0.1 * features[0].abs().mean()
        q = student(images.detach()).log_softmax(1)
        loss = loss + F.kl_div(q, z.detach().softmax(1), reduction="sum") / count
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    resolvers.register()
    overrides = ("experiment=dafl_mnist", f"paths.data={arguments.data}", "scheduler=constant")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("distill", [*overrides, f"stages.student.turns.rounds={arguments.steps}"])
    stage = factory.stage_config(cfg, "student")
    data = training_data(stage, factory.data(stage))
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    times = [
        (in_tutelage(module, data), by_hand(module, arguments.steps, data.batch_size)) for _ in range(arguments.rounds)
    ]
    ours, theirs = (1e3 * statistics.median(one) / arguments.steps for one in zip(*times, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"Tutelage {ours:.1f} ms a step, by hand {theirs:.1f} ms, median of the ratios {ratio:.3f}")


if __name__ == "__main__":
    main()
