"""RandomResizedCrop against torchvision's, on files and in memory."""

import io

import numpy as np
import pytest
import torch
from picture_folders import folder, write
from PIL import Image, ImageOps
from scipy.stats import ks_2samp
from torchvision import transforms
from torchvision.transforms import functional

from tutelage import seeding
from tutelage.data.augment import Augment, Crop, Flip
from tutelage.data.chance import Views, drawn
from tutelage.data.crops import RandomResizedCrop
from tutelage.data.each_image import EachImage
from tutelage.data.examples import normalisation
from tutelage.data.file_names import FileNames
from tutelage.data.floats import as_floats
from tutelage.data.image_folder import FilePixels
from tutelage.data.mix import Mix
from tutelage.data.order import Unfinished
from tutelage.data.pil_images import draft, fitted, reduction
from tutelage.data.pixels import JoinedPixels, MemoryPixels
from tutelage.errors import TutelageError

COUNT = 800


def boxes(crop, height, width, count=COUNT, seed=1):
    return np.array([crop.box(height, width, row) for row in seeding.uniform(seed, torch.arange(count), 23).tolist()])


def photo(height, width, seed=0):
    """A smooth picture with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.uint8(np.clip(np.asarray(coarse) + rng.normal(0, 4, (height, width, 3)), 0, 255)))


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((90, 120), (0.08, 1.0), (3 / 4, 4 / 3)), ((40, 200), (0.5, 1.0), (0.75, 1.5)), ((60, 60), (0.3, 0.9), (0.5, 2))],
)
def test_boxes_have_torchvisions_distribution(size, scale, ratio):
    image = torch.empty(3, *size)
    with seeding.seeded("boxes"):
        theirs = np.array([transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(COUNT)])
    own = boxes(RandomResizedCrop(scale, ratio), *size)
    area = (x[:, 2] * x[:, 3] for x in (own, theirs))
    for x, y in [*zip(own.T, theirs.T, strict=True), area]:
        assert ks_2samp(x, y).pvalue > 1e-3
    top, left, height, width = own.T
    assert (own >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    assert (height > 0).all()


@pytest.mark.parametrize(("size", "expected"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_a_shape_that_never_fits_gives_the_centre(size, expected):
    found = boxes(RandomResizedCrop((0.9, 1.0)), *size, count=20)
    assert (found == expected).all()
    assert transforms.RandomResizedCrop.get_params(torch.empty(3, *size), [0.9, 1], [3 / 4, 4 / 3]) == expected


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_pixels_of_a_box_are_torchvisions(mode):
    crop, image = RandomResizedCrop(interpolation=mode), photo(90, 120)
    tensor = functional.pil_to_tensor(image)
    how = transforms.InterpolationMode(mode)
    for row in seeding.uniform(2, torch.arange(5), 23).tolist():
        top, left, height, width = box = crop.box(90, 120, row)
        own = crop.scaled(tensor[:, top : top + height, left : left + width], (32, 32), row)
        theirs = functional.resized_crop(tensor, *box, [32, 32], how, antialias=True)
        assert (own.int() - theirs.int()).abs().max() <= 1  # theirs by way of float32, ours in integers
        of_pil = functional.pil_to_tensor(functional.resized_crop(image, *box, [32, 32], how))
        assert (own.int() - of_pil.int()).abs().max() <= 1
    floats = crop(tensor[None].float() / 255, torch.tensor([row]))
    assert floats.shape == (1, 3, 90, 120)
    assert 0 <= floats.min() <= floats.max() <= 1


def test_random_interpolation_is_either(tmp_path):
    chance = seeding.uniform(2, torch.arange(40), 23)
    image = functional.pil_to_tensor(photo(20, 20))
    made = {name: [RandomResizedCrop(interpolation=name).scaled(image, (7, 7), row) for row in chance.tolist()]
            for name in ("bilinear", "bicubic", "random")}  # fmt: skip
    bilinear = [torch.equal(a, b) for a, b in zip(made["random"], made["bilinear"], strict=True)]
    bicubic = [torch.equal(a, b) for a, b in zip(made["random"], made["bicubic"], strict=True)]
    assert all(a != b for a, b in zip(bilinear, bicubic, strict=True))
    assert 8 < sum(bilinear) < 32


def originals(root, sizes):
    names = [f"{i}.{'png' if i % 2 else 'jpg'}" for i in range(len(sizes))]
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        photo(*size, seed=i).save(root / name)
    return FilePixels(root, FileNames(names), (3, 16, 16))


def test_files_are_cropped_in_their_own_size(tmp_path):
    """The oracle: torchvision on the decoded file, one by one."""
    pixels, crop = originals(tmp_path, [(28, 30), (40, 25), (31, 31)]), RandomResizedCrop()
    rows = torch.tensor([2, 0, 0, 1, 0])
    chance = seeding.uniform(1, torch.arange(5), 23)
    found = pixels.cropped(rows, crop, chance)
    assert found.dtype == torch.uint8
    for image, row, numbers in zip(found, rows.tolist(), chance.tolist(), strict=True):
        whole = functional.pil_to_tensor(Image.open(tmp_path / pixels.names[row]))
        box = crop.box(*whole.shape[1:], numbers)
        expected = functional.resized_crop(whole, *box, [16, 16], antialias=True)
        assert (image.int() - expected.int()).abs().max() <= 1


def test_a_picture_is_a_function_of_seed_view_and_key(tmp_path):
    pixels = originals(tmp_path, [(28, 90), (400, 305), (31, 31)])
    both, keys = Augment([RandomResizedCrop(), Flip()], 1), torch.tensor([1, 0, 2, 1])
    whole = both.read(pixels, keys, 4)
    assert torch.equal(both.read(pixels, keys[2:], 4), whole[2:])
    assert torch.equal(whole[0], whole[3])
    views = Views((4, 5, 6), torch.tensor([0, 1, 0, 2]))
    mixed = both.read(pixels, keys, views)
    for i, view in enumerate((4, 5, 4, 6)):
        assert torch.equal(mixed[i], both.read(pixels, keys[i : i + 1], view)[0])
    assert not torch.equal(mixed[0], mixed[3])
    assert not torch.equal(both.with_seed(2).read(pixels, keys, 4), whole)


@pytest.mark.parametrize("times", [2, 4, 8])
def test_a_large_jpeg_is_decoded_smaller_with_nearly_the_same_pixels(tmp_path, monkeypatch, times):
    size = (36 * times + 5, 36 * times + 19)
    photo(*size).save(tmp_path / "0.jpg", quality=95)
    pixels = FilePixels(tmp_path, FileNames(["0.jpg"]), (3, 16, 16))
    crop, row = RandomResizedCrop((1.0, 1.0), (0.95, 0.95)), torch.zeros(1, dtype=torch.long)
    chance = seeding.uniform(3, torch.arange(1), 23)
    box = crop.box(*size, chance[0].tolist())
    assert reduction(box[2:], (16, 16)) == times
    small, centre = as_floats(pixels.cropped(row, crop, chance)), pixels[row]
    monkeypatch.setattr("tutelage.data.pil_images.draft", lambda image, times: 1)
    whole = functional.pil_to_tensor(Image.open(tmp_path / "0.jpg"))
    rounded = [round(x / times) * times for x in box]  # of the smaller image the box has whole pixels
    expected = functional.resized_crop(whole, *rounded, [16, 16], antialias=True).float() / 255
    assert max(abs(x - y) for x, y in zip(box, rounded, strict=True)) <= times / 2  # a quarter of a pixel of the result
    for found, exact in ((small, expected), (centre, pixels[row])):
        assert not torch.equal(found, exact)
        assert (found - exact).abs().mean() < 1.2 / 255


def test_what_is_not_a_large_jpeg_is_decoded_whole():
    content = io.BytesIO()
    photo(64, 64).save(content, "PNG")
    with Image.open(content) as image:
        assert draft(image, 4) == 1
    assert reduction((63, 200), (16, 16)) == 1
    assert reduction((64, 64), (16, 16)) == 2
    assert reduction((9999, 9999), (16, 16)) == 8


@pytest.mark.parametrize(
    ("size", "shape"), [((31, 47), (3, 8, 8)), ((47, 31), (1, 9, 7)), ((20, 20), (3, 8, 8)), ((9, 70), (3, 9, 7))]
)
def test_a_whole_image_covers_the_size_as_pillow_fits_it(size, shape):
    image = photo(*size)
    exact = ImageOps.fit(image.convert("L" if shape[0] == 1 else "RGB"), shape[:0:-1], Image.Resampling.BILINEAR)
    assert np.array_equal(fitted(image, shape), np.asarray(exact).reshape(shape[1], shape[2], -1))


def test_views_of_the_same_image_decode_it_once(tmp_path, monkeypatch):
    pixels, opened = originals(tmp_path, [(28, 30), (40, 25)]), []
    monkeypatch.setattr(FilePixels, "open", lambda self, row, own=FilePixels.open: opened.append(row) or own(self, row))
    pixels.cropped(torch.tensor([0, 0, 0, 1, 1]), RandomResizedCrop(), seeding.uniform(1, torch.arange(5), 23))
    assert opened == [0, 1]


def test_unlabelled_images_in_memory_are_cropped_in_their_size(tmp_path):
    files = originals(tmp_path, [(28, 30), (40, 25)])
    memory = MemoryPixels(torch.rand(2, 3, 16, 16))
    both, rows, chance = JoinedPixels((files, memory), (2, 2)), torch.tensor([3, 0, 2, 1]), torch.rand(4, 23)
    crop = RandomResizedCrop()
    found = both.cropped(rows, crop, chance)
    assert torch.equal(found[1::2], files.cropped(rows[1::2], crop, chance[1::2]) / 255)
    assert torch.equal(found[::2], crop(memory[rows[::2] - 2], chance[::2]))


def test_a_folder_is_cropped_and_its_validation_is_not(tmp_path):
    write(tmp_path, {"train": 6, "test": 2})
    plain, cropped = folder(tmp_path), folder(tmp_path, augment=[RandomResizedCrop((0.2, 0.5))], inputs=2)
    rows = torch.arange(4)
    one = cropped.splits["train"][0, rows]
    assert not torch.equal(one["input"], one["input2"])
    assert not torch.equal(one["input"], plain.splits["train"][0, rows]["input"])
    assert torch.equal(cropped.splits["val"][0, rows]["input"], plain.splits["val"][0, rows]["input"])


def test_pictures_of_files_have_the_bits_of_steps_on_floats_and_are_normalised_last(tmp_path):
    """Steps that take bytes are given them; with a step between that does not, all that follow have floats."""
    pixels, keys = originals(tmp_path, [(28, 90), (400, 305), (31, 31)]), torch.arange(3).repeat(9)  # in two parts
    normalise = normalisation((3, 16, 16), [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    for steps in ([], [Flip()], [EachImage(ImageOps.mirror)], [EachImage(ImageOps.invert), Half(), Flip()]):
        made = Augment([RandomResizedCrop(), *steps], 1)
        chance = drawn(1, "augment", keys, 4, sum(step.draws for step in made.steps))
        first, *others = chance.split([step.draws for step in made.steps], dim=1)
        expected = pixels.cropped(keys, made.steps[0], first).float() / 255
        for step, own in zip(steps, others, strict=True):
            expected = step(expected, own)
        assert torch.equal(made.read(pixels, keys, 4), expected)
        found = made.read(pixels, keys, 4, normalise)
        assert torch.equal(found, (expected - normalise.mean) / normalise.std)


def test_a_worker_makes_its_batch_in_shared_memory(tmp_path, monkeypatch):
    pixels, keys = originals(tmp_path, [(28, 90), (40, 30)]), torch.tensor([1, 0, 1])
    here = Augment([RandomResizedCrop()], 1).read(pixels, keys, 0)
    monkeypatch.setattr("tutelage.data.floats.get_worker_info", lambda: "a worker")
    there = Augment([RandomResizedCrop()], 1).read(pixels, keys, 0)
    assert there.is_shared()
    assert there.is_contiguous()
    assert torch.equal(here, there)


@pytest.mark.parametrize("steps", [[], [Flip()], [EachImage(ImageOps.invert)]], ids=["crop", "flip", "each"])
def test_what_a_worker_leaves_in_bytes_is_finished_to_the_same_bits(tmp_path, steps):
    write(tmp_path, {"train": 6, "test": 2})
    given = {"augment": [RandomResizedCrop(), *steps], "inputs": 2, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    train = folder(tmp_path, **given).splits["train"]
    whole, left = train[1, torch.arange(5)], train[Unfinished((1, torch.arange(5)))]
    assert (left["input"].dtype, left["input2"].dtype) == (torch.uint8, torch.uint8)
    same(train.finished(left), whole)
    here, there = (folder(tmp_path, num_workers=workers, **given).train_dataloader() for workers in (0, 2))
    for one, other in zip(here, there, strict=True):
        same(one, other)


def test_what_is_no_more_bytes_is_finished_in_the_worker(tmp_path):
    write(tmp_path, {"train": 6, "test": 2})
    steps = [RandomResizedCrop(), Half()]
    for given in ({"augment": steps}, {"augment": steps[:1], "mix": Mix()}, {"augment": [Flip()]}, {}):
        train = folder(tmp_path, **given).splits["train"]
        whole, left = train[1, torch.arange(5)], train[Unfinished((1, torch.arange(5)))]
        assert left["input"].dtype == torch.float32
        same(left, whole)
        same(train.finished(left), whole)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Half:
    draws = 1

    def __call__(self, images, chance):
        assert images.dtype == torch.float32
        return images * 0.5


def test_large_images_are_mirrored_as_small_ones_are():
    images, chance = torch.rand(5, 3, 80, 80), torch.rand(5, 1)
    for some in (images, (images * 255).to(torch.uint8)):
        rows = (chance[:, 0] < 0.5)[:, None, None, None]
        assert torch.equal(Flip()(some, chance), torch.where(rows, some.flip(-1), some))
        assert torch.equal(
            Flip()(some[..., :8, :8], chance), torch.where(rows, some[..., :8, :8].flip(-1), some[..., :8, :8])
        )


def test_a_damaged_file_is_named(tmp_path):
    pixels = originals(tmp_path, [(28, 30)])
    (tmp_path / "0.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:300])
    with pytest.raises(TutelageError, match=r"0\.jpg \(index 0, 300 bytes\) can't be read"):
        pixels.cropped(torch.tensor([0]), RandomResizedCrop(), torch.rand(1, 23))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop((0.5, "x")), r"scale must be two numbers above 0 and at most 1.*\[0.5, 'x'\]"),
        (lambda: RandomResizedCrop((0.5, 1.5)), r"scale must be two numbers above 0 and at most 1.*\[0.5, 1.5\]"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "ratio must be two numbers above 0, in ascending order"),
        (lambda: RandomResizedCrop(interpolation="nearest"), "bilinear, bicubic or random; found 'nearest'"),
        (lambda: Augment([Flip(), RandomResizedCrop()], 1), "RandomResizedCrop takes its part .* must be the first"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(TutelageError, match=message):
        make()


def test_it_is_a_crop_and_others_are_not():
    assert isinstance(RandomResizedCrop(), Crop)
    assert not isinstance(Flip(), Crop)
