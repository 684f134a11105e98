"""JPEGs of 500 pixels, decoded and augmented to 224: a folder of ours against torchvision's and its DataLoader.

    python benchmarks/decode.py [--images 512] [--rounds 5] [--workers 2] [--list 1000 1300]

Both take RandomResizedCrop, a mirror and ImageNet's normalisation, in batches of 64 by as many workers; interleaved,
images a second by wall clock, or with ``--workers 0`` by CPU time. "repeated" shows three views of a third of the
images; "rand" adds timm's RandAugment.
``--list C N`` lists C classes of N files, links to one, and prints seconds and memory; 1000 1300 is ImageNet's size.
"""

import argparse
import io
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder as Theirs

from tutelage.data.augment import Flip
from tutelage.data.crops import RandomResizedCrop
from tutelage.data.each_image import RandAugment
from tutelage.data.image_folder import ImageFolder
from tutelage.data.samplers import Repeated

MEAN, STD, BATCH = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 64
CONFIG = "rand-m9-mstd0.5-inc1"


def photo(seed: int) -> bytes:
    """A JPEG of about 60 kB: large shapes and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse) + rng.normal(0, 8, (375, 500, 3))
    content = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(pixels, 0, 255))).save(content, "JPEG", quality=90)
    return content.getvalue()


def write(root: Path, images: int) -> None:
    made = [photo(seed) for seed in range(32)]
    for split, count in (("train", images), ("val", 2), ("test", 2)):
        for label in "ab":
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count // 2):
                (folder / f"{number:05}.jpg").write_bytes(made[number % len(made)])


def ours(root: Path, workers: int, rand: bool, repeated: bool) -> Iterable[dict]:
    augment = [RandomResizedCrop(), Flip(), *([RandAugment(CONFIG, interpolation="bilinear")] if rand else [])]
    data = ImageFolder(
        root=root, input_shape=(3, 224, 224), mean=MEAN, std=STD, batch_size=BATCH, val_size=0.1, seed=0,
        augment=augment, num_workers=workers, sampler=Repeated(3, round=BATCH) if repeated else None,
    )  # fmt: skip
    return data.train_dataloader()


def theirs(root: Path, workers: int, rand: bool) -> Iterable[list]:
    of_timm = [RandAugment(CONFIG, interpolation="bilinear").transform((224, 224))] if rand else []
    steps = [
        transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *of_timm, transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]  # fmt: skip
    dataset = Theirs(str(root / "train"), transforms.Compose(steps))
    return DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)


def rate(loader: Iterable, images: int, clock: Callable[[], float]) -> float:
    begin = clock()
    count = sum(1 for _ in loader)
    assert count == images // BATCH
    return images // BATCH * BATCH / (clock() - begin)


def compare(images: int, rounds: int, workers: int) -> None:
    print(f"torch {torch.__version__}, {workers} workers, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.0f}")
    clock = time.perf_counter if workers else time.process_time
    print("| | torchvision | tutelage | ratio: median | least | greatest |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), images)
        for name, rand, repeated in (
            ("crop, mirror", False, False), ("rand", True, False), ("repeated", False, True),
            ("rand, repeated", True, True),
        ):  # fmt: skip
            own, other = ours(Path(folder), workers, rand, repeated), theirs(Path(folder), workers, rand)
            for loader in (own, other):  # workers start, files are in memory
                rate(loader, images, clock)
            found = [(rate(other, images, clock), rate(own, images, clock)) for _ in range(rounds)]
            ratios = sorted(b / a for a, b in found)
            a, b = (statistics.median(x) for x in zip(*found, strict=True))
            median, least, most = statistics.median(ratios), ratios[0], ratios[-1]
            print(f"| {name} | {a:.0f} | {b:.0f} | {median:.2f} | {least:.2f} | {most:.2f} |", flush=True)


def timed(what: str, call: Callable[[], object]) -> None:
    before, begin, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    call()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wall, own = time.perf_counter() - begin, time.process_time() - cpu
    print(f"{what}: {wall:.1f} s, {own:.1f} s of CPU, {grown:.0f} MB more at most", flush=True)


def listing(classes: int, files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for split, count in (("train", files), ("val", 1), ("test", 1)):
            for label in range(classes):
                own = Path(folder) / split / f"n{label:08}"
                own.mkdir(parents=True)
                (own / f"n{label:08}_0.JPEG").write_bytes(b"")
                for number in range(1, count):
                    os.link(own / f"n{label:08}_0.JPEG", own / f"n{label:08}_{number}.JPEG")
        data = ImageFolder(
            root=folder, input_shape=(3, 224, 224), mean=MEAN, std=STD, batch_size=BATCH, val_size=0.1, seed=0
        )
        timed(f"{classes * files} files listed", data.setup)
        timed("fingerprint (a stat of each)", data.fingerprint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--list", type=int, nargs=2, metavar=("CLASSES", "FILES"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.list:
        listing(*arguments.list)
    else:
        compare(arguments.images, arguments.rounds, arguments.workers)


if __name__ == "__main__":
    main()
