"""Pictures of made images: where each lies, when they are logged, and what is written."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from tutelage.training.callbacks.generated import GeneratedImages, grid


class Board(TensorBoardLogger):
    """Keeps what would be logged."""

    def __init__(self):
        self.logged = []

    @property
    def experiment(self):
        return SimpleNamespace(add_image=lambda *found: self.logged.append(found))


def images(count, channels=1):
    return torch.arange(count * channels * 6).reshape(count, channels, 2, 3) / (count * channels * 6)


@pytest.mark.parametrize(("count", "channels"), [(3, 1), (8, 3), (11, 2)])
def test_images_stand_in_rows_of_eight_on_white(count, channels):
    made = images(count, channels)
    expected = np.full((channels, 4 * -(-count // 8) - 2, 5 * 8 - 2), 255)
    for i, image in enumerate(made):
        row, column = divmod(i, 8)
        expected[:, 4 * row : 4 * row + 2, 5 * column : 5 * column + 3] = np.rint(image.numpy() * 255)
    assert grid(made).dtype == torch.uint8
    assert np.array_equal(grid(made), expected)


def trainer(tmp_path, board, epoch=0, epochs=25, pictures=lambda inputs: inputs):
    batches = [{"input": part} for part in images(70).split(60)]
    data = SimpleNamespace(pictures=pictures, whole=lambda split: batches if split == "train" else None)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7))
    return SimpleNamespace(
        current_epoch=epoch, max_epochs=epochs, loggers=[object(), board], default_root_dir=str(tmp_path),
        datamodule=data, fit_loop=loop,
    )  # fmt: skip


MODULE = SimpleNamespace(examples=lambda count: images(count).half())


@pytest.mark.parametrize(
    ("fixed", "epochs", "logged"),
    [(False, 25, [*range(1, 25, 2)]), (False, 3, [0, 1, 2]), (True, 25, [0])],
)
def test_pictures_are_logged_some_ten_times_or_once(tmp_path, fixed, epochs, logged):
    found = []
    for epoch in range(epochs):
        board = Board()
        GeneratedImages(fixed).on_train_epoch_end(trainer(tmp_path, board, epoch, epochs), MODULE)
        found += [epoch] * len(board.logged)
    assert found == logged


@pytest.mark.parametrize("fixed", [False, True])
def test_the_picture_is_that_of_64_images_with_the_step_of_the_other_figures(tmp_path, fixed):
    board, expected = Board(), grid(images(70)[:64] if fixed else images(64).half().float())
    GeneratedImages(fixed).on_train_epoch_end(trainer(tmp_path, board, epochs=1), MODULE)
    [(name, picture, step)] = board.logged
    assert (name, step) == ("generated", 7)
    assert torch.equal(picture, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_images_are_a_file(tmp_path, channels):
    made = SimpleNamespace(examples=lambda count: images(count, channels))
    GeneratedImages().on_train_end(trainer(tmp_path, Board()), made)
    with Image.open(tmp_path / "generated.png") as picture:
        assert picture.format == "PNG"
        found = np.asarray(picture).reshape(30, 38, channels).transpose(2, 0, 1)
    assert np.array_equal(found, grid(images(64, channels)))


def test_inputs_that_are_no_pixels_are_squashed(tmp_path):
    board = Board()
    GeneratedImages().on_train_epoch_end(trainer(tmp_path, board, epochs=1, pictures=lambda inputs: None), MODULE)
    assert torch.equal(board.logged[0][1], grid(images(64).half().float().sigmoid()))
