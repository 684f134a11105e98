"""A grid of 64 jobs (4 temperatures × 4 alphas × 4 seeds) of cnn → dense on MNIST, from the command to the last folder.

    python benchmarks/sweep.py [--epochs 20] [--rounds 1] [--few 4] [--data ../shared/data]

(a) Lightning as usually written (``lightning_app.py``): Hydra's basic launcher, cached teacher, three logged values;
(b) ``tutelage distill -m launcher=basic``;
(c) ``tutelage distill -m launcher=stacked``.

The teacher and its cache are made before and belong to nobody. (b) and (c) also train four controls, compare three
networks in every job and write pictures; (a) trains and tests a student. (c) runs whole. Of (a) and (b), whose jobs
come one by one, two jobs and then ``--few`` more are timed, and the rest is reckoned from what one more costs (of
(b), each of the other three controls as one job).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir

PAIR = ("data=mnist", "model@teacher=cnn", "model@student=dense", "stages.teacher.trainer.max_epochs=1")
TEMPERATURES, ALPHAS, SEEDS = (1, 2, 4, 8), (0.3, 0.5, 0.7, 0.9), (0, 1, 2, 3)
JOBS = len(TEMPERATURES) * len(ALPHAS) * len(SEEDS)


def grid(jobs: int | None, temperature: str, alpha: str) -> list[str]:
    """The whole grid, or so many jobs of its first seed."""
    if jobs is None:
        axes = (temperature, TEMPERATURES), (alpha, ALPHAS), ("seed", SEEDS)
        return [f"{key}={','.join(map(str, values))}" for key, values in axes]
    values = [1 + i / 100 for i in range(jobs)]
    return [f"{temperature}={','.join(map(str, values))}", f"{alpha}=0.9", "seed=0"]


def seconds(command: list[str], folder: Path, **env: str) -> float:
    """Of a whole process."""
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return time.perf_counter() - begun


def tutelage(folder: Path, shop: Path, launcher: str, jobs: int | None, epochs: int, data: str) -> float:
    """A sweep of ours; the controls are its own."""
    command = [
        sys.executable, "-m", "tutelage", "distill", "-m", f"launcher={launcher}", *PAIR,
        f"trainer.max_epochs={epochs}", f"paths.data={data}", f"paths.outputs={folder}",
        f"hydra.sweep.dir={folder}/sweep",
        *grid(jobs, "loss.temperature", "loss.alpha"),
    ]  # fmt: skip
    subprocess.run(["cp", "-r", str(shop), str(folder / "artifacts")], check=True)
    return seconds(command, folder)


def lightning(folder: Path, jobs: int, epochs: int, tensors: Path) -> float:
    """The script of a careful user."""
    app = str(Path(__file__).with_name("lightning_app.py"))
    values = grid(jobs, "+temperature", "+alpha")[:2]
    command = [sys.executable, app, "-m", f"+epochs={epochs}", "+seed=0", *values]
    return seconds(command, folder, SWEEP_DATA=str(tensors))


def prepare(folder: Path, data: str) -> tuple[Path, Path]:
    """A teacher with its cache, as artifacts; and the tensors that (a) reads."""
    command = [sys.executable, "-m", "tutelage", "cache", *PAIR, f"paths.data={data}", f"paths.outputs={folder}",
               f"hydra.run.dir={folder}/run"]  # fmt: skip
    seconds(command, folder)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        loaded = factory.data(compose("distill", overrides=[*PAIR[:3], f"paths.data={data}"]))
    parts = {}
    for split in ("train", "val", "test"):
        batch = loaded.splits[split][0, torch.arange(len(loaded.splits[split]))]
        parts[split] = [batch["input"], batch["label"], torch.randn(len(batch["label"]), 10)]
    torch.save(parts, folder / "tensors.pt")
    return folder / "artifacts", folder / "tensors.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--data", default="../shared/data")
    given = parser.parse_args()
    resolvers.register()
    data = str(Path(given.data).absolute())
    ratios = []
    with tempfile.TemporaryDirectory(prefix="tutelage-benchmark-") as name:
        root = Path(name)
        shop, tensors = prepare(root, data)

        def place(what: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=what, dir=root))

        for _ in range(given.rounds):
            two, more = (lightning(place("a"), n, given.epochs, tensors) for n in (2, 2 + given.few))
            a = two + (JOBS - 2) * (more - two) / given.few
            c = tutelage(place("c"), shop, "stacked", None, given.epochs, data)
            two, more = (tutelage(place("b"), shop, "basic", n, given.epochs, data) for n in (2, 2 + given.few))
            b = two + (JOBS - 2 + len(SEEDS) - 1) * (more - two) / given.few
            print(
                f"{JOBS} jobs: (a) {a:.0f} s, (b) {b:.0f} s, (c) {c:.0f} s; a/c {a / c:.1f}, b/c {b / c:.1f}",
                flush=True,
            )
            ratios.append((a / c, b / c))
    print("medians: a/c {:.1f}, b/c {:.1f}".format(*(statistics.median(own) for own in zip(*ratios, strict=True))))


if __name__ == "__main__":
    main()
