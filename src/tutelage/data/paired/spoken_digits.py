"""Spoken digits, each with an image of MNIST of the same digit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tutelage import seeding
from tutelage.data.idx import IdxImages
from tutelage.data.npz import read_arrays
from tutelage.data.paired.base import PairedData, PairedPart
from tutelage.data.paired.sound import log_mel
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError

DIGITS = 10
_ARRAYS = ("samples", "length", "digit", "speaker", "take", "rate")


class SpokenDigits(PairedData):
    """Recordings of spoken digits paired with images of MNIST by their digit, as AV-MNIST does.

    A batch has ``input``, an image, and ``sound``, the log-mel spectrogram of a recording of the same digit; nothing
    else connects the two. Training and validation pairs have images of MNIST's training set, each at most once, test
    pairs images of its test set; each has a recording of its digit, drawn with ``pair_seed``. The test's recordings are
    the takes below ``test_takes`` of each speaker and digit, the Free Spoken Digit Dataset's own split.

    Args:
        recordings: an ``.npz`` with ``samples`` (int16, all recordings end to end), ``length``, ``digit``, ``speaker``,
            ``take`` [N] and ``rate``.
        root: the folder of MNIST.
        download: whether to download MNIST if it is missing.
        sound_shape: [1, M, F] of a spectrogram: mel bands and windows of 32 ms every 16 ms (at 8 kHz).
        pairs_per_digit: training pairs of each digit, validation included.
        test_per_digit: test pairs of each digit.
        test_takes: see above.
        pair_seed: of what is paired, whatever the run's seed.
        **common: arguments of :class:`~tutelage.data.paired.base.PairedData`.

    Raises:
        TutelageError: a file is missing or damaged, or an argument is out of range.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("mean", "std", "sound_shape")

    def __init__(
        self,
        *,
        recordings: str | Path,
        root: str | Path,
        download: bool,
        sound_shape: Sequence[int] = (1, 32, 64),
        pairs_per_digit: int = 600,
        test_per_digit: int = 100,
        test_takes: int = 5,
        pair_seed: int = 0,
        **common: Any,
    ):
        super().__init__(**common)
        if len(sound_shape) != 3 or sound_shape[0] != 1 or min(sound_shape) < 1 or sound_shape[2] < 2:
            raise TutelageError(f"data.sound_shape must be [1, bands, windows]; found {[*sound_shape]}")
        self.counts = {"pairs_per_digit": pairs_per_digit, "test_per_digit": test_per_digit, "test_takes": test_takes}
        for key, count in self.counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise TutelageError(f"data.{key} must be a whole number of at least 1; found {count!r}")
        self.recordings, self.sound_shape, self.pair_seed = Path(recordings), tuple(sound_shape), pair_seed
        self._images = IdxImages(
            root=root, dataset="MNIST", download=download, num_classes=DIGITS, input_shape=[1, 28, 28], mean=[0.0],
            std=[1.0], batch_size=1, val_size=1, seed=0,
        )  # fmt: skip

    def pairs(self) -> tuple[PairedPart, PairedPart]:
        """Returns training and test pairs, digit by digit mixed in an order of ``pair_seed``."""
        sound, digit, take = self._spectrograms()
        held = take < self.counts["test_takes"]
        found = []
        for name, own, images, count in zip(
            ("train", "test"), (~held, held), self._images.load(),
            (self.counts["pairs_per_digit"], self.counts["test_per_digit"]), strict=True,
        ):  # fmt: skip
            seen, heard, labels = paired_by_digit(images.labels.long(), digit, own, count, name, self.pair_seed)
            assert isinstance(images.pixels, MemoryPixels)
            found.append(PairedPart({"input": images.pixels[seen], "sound": sound[heard]}, labels))
        return found[0], found[1]

    def _spectrograms(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns spectrograms [N, 1, M, F], digits and takes [N]."""
        path = self.recordings
        arrays = read_arrays(path, _ARRAYS, "data.recordings")
        lengths, digit, take = (arrays[name].astype(np.int64) for name in ("length", "digit", "take"))
        if not len(lengths) == len(digit) == len(take) or not len(lengths):
            raise TutelageError(
                f"{path}: length, digit and take must have a number for each recording; found {len(lengths)}, "
                f"{len(digit)} and {len(take)}"
            )
        samples = arrays["samples"]
        if samples.dtype != np.int16 or lengths.min() < 1 or lengths.sum() != len(samples):
            raise TutelageError(
                f"{path}: samples must be int16 and as many as the sum of length, {int(lengths.sum())}; found "
                f"{len(samples)} of {samples.dtype}"
            )
        if digit.min() < 0 or digit.max() >= DIGITS:
            row = int(((digit < 0) | (digit >= DIGITS)).argmax())
            raise TutelageError(f"{path}: recording {row}: expected a digit 0 to 9; found {digit[row]}")
        rate, (_, bands, frames) = int(arrays["rate"]), self.sound_shape
        each = torch.from_numpy(samples.astype(np.float32) / 32768).split(lengths.tolist())
        sound = torch.stack([log_mel(one, rate, bands, frames) for one in each])
        return sound, torch.from_numpy(digit), torch.from_numpy(take)


def paired_by_digit(
    images: Tensor, digits: Tensor, allowed: Tensor, count: int, part: str, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs images with recordings of the same digit, as a function of ``seed`` and ``part``.

    Args:
        images: [M] labels of the images.
        digits: [N] digits of the recordings.
        allowed: [N] bools, the recordings of this part.
        count: pairs of each digit.
        part: ``train`` or ``test``.
        seed: any integer.

    Returns:
        Rows of images (each at most once), rows of recordings and labels, [10·count] each.

    Raises:
        TutelageError: a digit has too few images, or no recording.
    """
    made = seeding.generator(seed, "pairs", part)
    seen, heard = [], []
    for digit in range(DIGITS):
        own, sounds = (images == digit).nonzero().flatten(), ((digits == digit) & allowed).nonzero().flatten()
        if len(own) < count or not len(sounds):
            raise TutelageError(
                f"data: {count} {part} pairs of the digit {digit} need as many images and a recording; found "
                f"{len(own)} and {len(sounds)}"
            )
        seen.append(own[torch.randperm(len(own), generator=made)[:count]])
        heard.append(sounds[torch.randint(len(sounds), (count,), generator=made)])
    order = torch.randperm(DIGITS * count, generator=made)
    seen_rows, heard_rows = torch.cat(seen)[order], torch.cat(heard)[order]
    return seen_rows, heard_rows, digits[heard_rows]
