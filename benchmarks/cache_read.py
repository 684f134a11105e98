"""The cost of reading a teacher's signals beside a student's step: 50,000 × 1,000 float16 logits, batches at random.

    python benchmarks/cache_read.py [--batch 64] [--rounds 5]

The student is ResNet-18 on 32 × 32 images; its step is forward, soft target, backward and fused SGD. Printed: medians
of the CPU time of interleaved rounds, and the share.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch
from clock import cpu_seconds
from hydra import compose, initialize_config_dir

import tutelage.cli.main  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.sources.cached import Cached
from tutelage.sources.store import ROWS, Column, Writer

N, CLASSES = 50_000, 1_000


def written(folder: Path) -> Path:
    writer = Writer(folder, [Column("logits", (CLASSES,), "float16")], torch.arange(N), 1)
    for view, start in writer.missing():
        writer.write(view, start, {"logits": torch.randn(min(ROWS, N - start), CLASSES)})
    writer.finish({})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    resolvers.register()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("distill", overrides=["data=cifar100", "model@student=resnet18", "student.net.num_classes=1000"])
    net = factory.network(factory.stage_config(cfg, "student").student, 0, "student").net.train()
    optimizer, loss = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True), SoftTarget(4.0)
    images = torch.randn(arguments.batch, 3, 32, 32)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cached(None, str(written(Path(folder))))
        cache.attach({"logits"}, {})

        def read() -> torch.Tensor:
            return cache({"key": torch.randint(N, (arguments.batch,))})["logits"]

        target = read()

        def step() -> None:
            optimizer.zero_grad()
            loss(net(images), target).backward()
            optimizer.step()

        step()
        found = [(cpu_seconds(read, 200), cpu_seconds(step, 2)) for _ in range(arguments.rounds)]
    reading, stepping = (statistics.median(times) for times in zip(*found, strict=True))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs")
    print(f"reading {1e3 * reading:.3f} ms, ResNet-18's step {1e3 * stepping:.0f} ms: {reading / stepping:.3%}")


if __name__ == "__main__":
    main()
