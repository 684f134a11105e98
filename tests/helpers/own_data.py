"""Datasets of a stranger's: scikit-learn's digits in every shape that samples come in."""

import random
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler, random_split


def digits(part):
    found = load_digits()
    images, labels = (found.images * 15.9375).astype(np.uint8), found.target
    rows = {"train": slice(0, 600), "val": slice(600, 900), "test": slice(900, 1197), "small": slice(0, 48)}[part]
    return images[rows], labels[rows]


class Pictures(Dataset):
    """(PIL image, label), as torchvision's datasets give them."""

    classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(self, part="train", transform=None):
        self.images, self.targets = digits(part)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        image = Image.fromarray(self.images[row])
        return self.transform(image) if self.transform else image, int(self.targets[row])


class Dicts(Pictures):
    """A dict with a label by another name and further fields."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return {"image": image, "fine_label": label, "ink": float(self.images[row].mean()), "file": f"{row}.png"}


@dataclass
class Digit:
    image: Image.Image
    label: int


class Objects(Pictures):
    def __getitem__(self, row):
        return Digit(*super().__getitem__(row))


def tensors(part="train"):
    images, labels = digits(part)
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(labels))


def brightness(part="train"):
    """Numbers to predict."""
    images, _ = digits(part)
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(images.mean((1, 2))))


class Noisy(Pictures):
    """Draws at random by itself, from one of the global generators."""

    def __init__(self, part="train", of="torch"):
        super().__init__(part)
        self.of = of

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        draw = {"torch": lambda: float(torch.rand(())), "numpy": np.random.rand, "python": random.random}
        return torch.from_numpy(np.array(image))[None].float() / 255 + draw[self.of](), label


class Own(Pictures):
    """Draws from a generator of its own, which nobody can set."""

    def __init__(self, part="train"):
        super().__init__(part)
        self.generator = np.random.default_rng(0)

    def __getitem__(self, row):
        return torch.full((1, 8, 8), self.generator.random(), dtype=torch.float32), int(self.targets[row])


class Lengths(Dataset):
    """Sequences of different lengths."""

    def __init__(self, count=60):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return {"input": torch.full((1 + row % 7, 3), float(row)), "label": row % 2}


def padded(samples):
    longest = max(len(sample["input"]) for sample in samples)
    inputs = torch.zeros(len(samples), longest, 3)
    for row, sample in enumerate(samples):
        inputs[row, : len(sample["input"])] = sample["input"]
    mask = torch.tensor([[i < len(sample["input"]) for i in range(longest)] for sample in samples])
    return {"input": inputs, "mask": mask, "label": torch.tensor([sample["label"] for sample in samples])}


class Listed(Dataset):
    """Samples of a list."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, row):
        return self.samples[row]


class Stream(IterableDataset):
    """Samples in their order alone."""

    def __iter__(self):
        pictures = Pictures("val")
        yield from (pictures[row] for row in range(300))


class Module(L.LightningDataModule):
    """A DataModule with a split of its own chance, and a loader that weighs examples."""

    def __init__(self, weighted=False, drawn=True, stream=False):
        super().__init__()
        self.weighted, self.drawn, self.stream = weighted, drawn, stream

    def prepare_data(self):
        self.prepared = True

    def setup(self, stage):
        if stage == "fit":
            self.train, self.val = random_split(Pictures(), [500, 100]) if self.drawn else (Pictures(), Pictures("val"))
        if stage == "test":
            self.test = Stream() if self.stream else Pictures("test")

    def train_dataloader(self):
        weights = WeightedRandomSampler([1.0] * len(self.train), 100) if self.weighted else None
        return DataLoader(self.train, batch_size=50, sampler=weights, collate_fn=stack)

    def val_dataloader(self):
        return DataLoader(self.val, collate_fn=stack)

    def test_dataloader(self):
        return [DataLoader(self.test, batch_size=7, collate_fn=stack)]


def stack(samples):
    images = torch.stack([torch.from_numpy(np.array(image))[None] for image, _ in samples])
    return images, torch.tensor([label for _, label in samples])


def answers(part="train") -> TensorDataset:
    """Two yes-or-no labels an image: an even digit, a digit above 4; some are not known."""
    images, labels = digits(part)
    found = np.stack([labels % 2 == 0, labels > 4], 1).astype(np.float32)
    found[::7, 0] = np.nan
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(found))


def ink(part="train") -> TensorDataset:
    """A class for each pixel: paper, ink, much ink; the corners count for nothing."""
    images, _ = digits(part)
    classes = np.digitize(images, [64, 160]).astype(np.int64)
    classes[:, [0, 0, -1, -1], [0, -1, 0, -1]] = -100
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(classes))


class PixelNet(torch.nn.Module):
    """A class for each pixel, classes last."""

    def __init__(self, width=8, classes=3):
        super().__init__()
        self.body = torch.nn.Conv2d(1, width, 3, padding=1)
        self.classifier = torch.nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.classifier(self.body(x).relu()).movedim(1, -1)


def _sentences(part="train"):
    """Ids [N, 12] of 20 words, and how many of them there are; the rest is 0."""
    seed, count = {"train": (0, 300), "test": (1, 100)}[part]
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 20, (count, 12), generator=drawn)
    ids[:, 1:] = torch.where(torch.rand(count, 11, generator=drawn) < 0.5, ids[:, :-1] % 19 + 1, ids[:, 1:])
    length = torch.randint(4, 13, (count, 1), generator=drawn)
    return torch.where(torch.arange(12) < length, ids, 0), length


def tags(part="train") -> TensorDataset:
    """A tag for each word, O, B-x or I-x: spans are runs of words above 12; none where there is no word."""
    ids, _ = _sentences(part)
    inside = ids > 12
    before = torch.cat([torch.zeros_like(inside[:, :1]), inside[:, :-1]], 1)
    return TensorDataset(ids, torch.where(ids > 0, inside.long() * (1 + before.long()), -100))


def next_words(part="train") -> TensorDataset:
    """The word after each; none after the last."""
    ids, length = _sentences(part)
    label = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], 1)
    return TensorDataset(ids, torch.where(torch.arange(12) < length - 1, label, -100))


class WordNet(torch.nn.Module):
    """Logits for each word from it and the one before."""

    def __init__(self, width=8, outputs=3):
        super().__init__()
        self.words = torch.nn.Embedding(20, width)
        self.body = torch.nn.Conv1d(width, width, 2)
        self.classifier = torch.nn.Linear(width, outputs)

    def forward(self, ids):
        states = torch.nn.functional.pad(self.words(ids).transpose(1, 2), (1, 0))
        return self.classifier(self.body(states).relu().transpose(1, 2))
