"""data=omniglot and data=spoken_digits: two modalities of an example as fields of a batch."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from made_pairs import ALPHABETS, DRAWERS, recordings, strokes, write_omniglot
from small_mnist import write

from tutelage.data.paired.sound import log_mel, mel_filters
from tutelage.data.paired.spoken_digits import paired_by_digit
from tutelage.data.paired.strokes import as_sequence, read_strokes
from tutelage.data.resident import Residence
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

CHARACTERS = sum(ALPHABETS.values())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_omniglot(tmp_path_factory.mktemp("omniglot"))


@pytest.fixture
def omniglot(compose, tmp_path, drawn):
    def make(*overrides, **changes):
        files = write_omniglot(tmp_path / "omniglot", **changes) if changes else drawn
        small = (f"data.num_classes={CHARACTERS}", "data.val_drawers=1", "data.test_drawers=2", "data.batch_size=3")
        own = [f"data.{name}={path}" for name, path in files.items()]
        data = instantiate(compose("data=omniglot", *small, *own, *overrides).data)
        data.setup()
        return data

    return make


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def spoken(compose, tmp_path, mnist):
    def make(*overrides, **arrays):
        np.savez(tmp_path / "spoken.npz", **recordings() | arrays)
        small = (
            "pairs_per_digit=3",
            "test_per_digit=2",
            "test_takes=1",
            "val_size=8",
            "batch_size=4",
            "sound_shape=[1,8,12]",
        )
        own = (f"data.recordings={tmp_path}/spoken.npz", f"data.root={mnist}", *(f"data.{one}" for one in small))
        own += ("data.sound_shape=[1,8,12]",)
        data = instantiate(compose("data=spoken_digits", *own, *overrides).data)
        data.setup()
        return data

    return make


# -- strokes ---------------------------------------------------------------------------------------------------------


def test_points_are_at_equal_steps_along_each_stroke_whatever_the_pens_speed():
    slow = np.stack([np.linspace(0, 40, 9) ** 2 / 40, np.zeros(9)], 1)  # along x, faster and faster
    features, mask = as_sequence([slow, np.array([[50.0, 10.0]])], 20, 4.0, 100.0)
    assert mask.tolist() == [True] * 12 + [False] * 8
    x = (features[:12, 0] + 1) * 50
    np.testing.assert_allclose(x, [*range(0, 41, 4), 50], atol=1e-4)
    np.testing.assert_allclose(features[1:12, 2], np.diff(x) / 50, atol=1e-6)
    assert features[:12, 4].tolist() == [0] * 10 + [1, 1]  # both strokes end there
    assert not features[12:].any()


def test_a_long_drawing_has_larger_steps_and_keeps_the_ends_of_its_strokes():
    long = [np.array([[0.0, 0.0], [100.0, 0.0]]), np.array([[0.0, 50.0], [100.0, 50.0]])]
    features, mask = as_sequence(long, 10, 4.0, 100.0)
    assert 6 <= mask.sum() <= 10
    ends = features[features[:, 4] == 1]
    assert ends[:, 0].tolist() == [1, 1]
    with pytest.raises(TutelageError, match="3 strokes, more than 2 points"):
        as_sequence([*long, long[0]], 2, 4.0, 100.0)
    assert as_sequence([*long, long[0]], 3, 4.0, 100.0)[1].all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("START\n1,2\nBREAK", "f.txt: line 2: expected x,y,milliseconds; found '1,2'"),
        ("START\n1,nan,3\nBREAK", "line 2: expected finite numbers"),
        ("START\nBREAK\n", "f.txt: no stroke in it"),
    ],
)
def test_a_file_that_is_no_strokes_is_one_sentence(text, said):
    with pytest.raises(TutelageError, match=said):
        read_strokes(text, "f.txt")


# -- omniglot --------------------------------------------------------------------------------------------------------


def test_a_batch_has_the_image_and_the_strokes_of_the_same_drawing(omniglot):
    data = omniglot()
    assert data.class_names == ["Greek 1", "Greek 2", "Latin 1"]
    batch = next(iter(data.whole("test")))
    assert set(batch) == {"input", "strokes", "strokes_mask", "label", "key"}
    for image, points, mask, label in zip(*(batch[name] for name in list(batch)[:4]), strict=True):
        x, y = ((points[mask, :2] + 1) / 2 * 28).T
        assert points[mask, 4].sum() == (1, 2)[(int(label) % 2) == 0]  # Greek 1 and Latin 1 are drawn by two strokes
        ink = torch.nn.functional.max_pool2d(image[None], 3, 1, 1)[0, 0]
        assert (ink[y.long(), x.long()] > 0).all()


def test_drawers_of_training_validation_and_test_are_different_people(omniglot):
    data, other = omniglot(), omniglot("data.split_seed=1")
    assert {part: len(split) for part, split in data.splits.items()} == {
        "train": 3 * CHARACTERS, "val": CHARACTERS, "test": 2 * CHARACTERS
    }  # fmt: skip
    assert sorted(drawer for own in data.parts.values() for drawer in own) == list(range(1, DRAWERS + 1))
    assert data.parts["test"] == other.parts["test"]
    assert data.parts["val"] != other.parts["val"]
    lines = {drawer: strokes(1, drawer)[0][0, 0] / 105 * 2 - 1 for drawer in range(1, DRAWERS + 1)}
    for part, own in data.parts.items():
        first = next(iter(data.whole(part)))["strokes"][:, 0, 0].tolist()
        assert {min(lines, key=lambda one: abs(lines[one] - x)) for x in first} == set(own)


def test_pairs_without_labels_keep_both_modalities(omniglot):
    data = omniglot("data.labelled=3", "data.repeat_labelled=2")
    labels = data.splits["train"].labels
    assert (labels == NO_LABEL).sum() == 2 * CHARACTERS
    assert len(data.per_epoch(data.splits["train"])) == 4 * CHARACTERS
    assert data.sample(4)["strokes"].abs().sum((1, 2)).min() > 0
    whole = omniglot()
    assert data.fingerprint() != whole.fingerprint()
    assert whole.fingerprint() == omniglot().fingerprint()
    assert whole.fingerprint() != omniglot("data.spacing=9").fingerprint()


def test_images_alone_are_no_further_pairs(omniglot, tmp_path):
    np.savez(tmp_path / "more.npz", x=np.zeros((4, 28, 28), np.uint8))
    more = f"{{_target_: tutelage.data.unlabelled.Npz, path: {tmp_path}/more.npz, array: x}}"
    with pytest.raises(TutelageError, match="the examples have the fields input, strokes, strokes_mask, which images"):
        omniglot(f"data.unlabelled=[{more}]")


def test_pairs_move_to_a_device_as_a_whole(omniglot):
    data = omniglot()
    moved = Residence(torch.device("cpu")).take(data.splits["train"])
    request = 0, torch.tensor([4, 0])
    for name, field in data.splits["train"][request].items():
        assert torch.equal(moved[request][name], field)


PNG, TXT = "images/Greek/character01/0001_03.png", "strokes/Greek/character01/0001_03.txt"


@pytest.mark.parametrize(
    ("overrides", "changes", "said"),
    [
        ([], {"drop": TXT}, "1 drawings are in one of the files only; the first: Greek character 1 drawer 3"),
        ([], {"change": {TXT: b"START\nx,y,z\nBREAK"}}, "03.txt: line 2: expected x,y,milliseconds; found 'x,y,z'"),
        ([], {"change": {PNG: b"none"}}, "0001_03.png: not a sound image"),
        (["data.alphabets=[Greek,Thai]"], {}, "no alphabet 'Thai'; known: Greek, Latin"),
        (["data.num_classes=4"], {}, "data.num_classes=4: the files have 3 characters"),
        (["data.test_drawers=5"], {}, "of 6 drawers: none is left for training"),
        (["data.strokes_shape=[96,4]"], {}, r"data.strokes_shape must be \[points, 5\]"),
        (["data.images=/nowhere.zip"], {}, "data.images: there is no file /nowhere.zip"),
        (["data.std=[0]"], {}, "data.std must be above 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(omniglot, overrides, changes, said):
    with pytest.raises((TutelageError, InstantiationException), match=said):
        omniglot(*overrides, **changes)


def test_a_damaged_zip_is_one_sentence(omniglot, drawn, tmp_path):
    whole = drawn["strokes"].read_bytes()
    broken = tmp_path / "broken.zip"
    for content in (whole[: len(whole) // 2], whole[:2000] + bytes(40) + whole[2040:]):
        broken.write_bytes(content)
        with pytest.raises((TutelageError, InstantiationException), match=r"broken\.zip"):
            omniglot(f"data.strokes={broken}")


# -- spoken digits ---------------------------------------------------------------------------------------------------


def test_a_recording_has_the_digit_of_its_image_and_test_takes_are_apart(spoken, mnist):
    digits, takes = torch.arange(40) // 4, torch.arange(40) % 4
    labels = torch.arange(200) % 10
    seen, heard, found = paired_by_digit(labels, digits, takes >= 1, 5, "train", 0)
    assert torch.equal(labels[seen], digits[heard])
    assert torch.equal(found, digits[heard])
    assert (takes[heard] >= 1).all()
    assert found.bincount().tolist() == [5] * 10
    assert len(seen.unique()) == len(seen)
    assert not torch.equal(seen, paired_by_digit(labels, digits, takes >= 1, 5, "train", 1)[0])
    data = spoken()
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 22, "val": 8, "test": 20}
    batch = data.sample(6)
    assert batch["sound"].shape == (6, 1, 8, 12)
    held = spoken("data.pair_seed=0").splits["test"]
    own = {tuple(one.flatten().tolist()) for one in held.fields["sound"]}
    assert len(own) == 10  # one take of each digit
    assert not own & {tuple(one.flatten().tolist()) for one in data.splits["train"].fields["sound"]}


def test_a_spectrogram_is_that_of_a_plain_fourier_sum():
    rate, bands, frames, window, hop = 8000, 6, 5, 64, 32
    samples = torch.sin(torch.arange(120) * 0.7) * torch.linspace(1, 0.1, 120)
    found = log_mel(samples, rate, bands, frames, window, hop)[0].double().numpy()
    wanted = hop * (frames - 1)
    before = (wanted - 120) // 2
    padded = np.zeros(wanted + window)
    padded[window // 2 + before : window // 2 + before + 120] = samples.double().numpy()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window)
    power = np.stack([np.abs(waves @ (padded[i * hop : i * hop + window] * hann)) ** 2 for i in range(frames)], 1)
    log = np.log(np.maximum(mel_filters(bands, window // 2 + 1, rate).double().numpy() @ power, 1e-5))
    np.testing.assert_allclose(found, (log - log.mean()) / log.std(ddof=1), atol=1e-4)


def test_filters_are_triangles_that_cover_the_spectrum():
    filters = mel_filters(8, 400, 8000)
    inside = filters[:, int(filters[0].argmax()) : int(filters[-1].argmax())]
    assert (inside.sum(0) > 0.9).all()
    assert filters.max() <= 1
    assert (filters.argmax(1).diff() > 0).all()
    assert (filters.argmax(1).diff().diff() >= -1).all()  # wider and wider apart


def test_silence_and_long_recordings_have_a_spectrogram():
    assert not log_mel(torch.zeros(50), 8000, 8, 12).any()
    assert log_mel(torch.randn(99_999), 8000, 8, 12).shape == (1, 8, 12)


@pytest.mark.parametrize(
    ("overrides", "arrays", "said"),
    [
        ([], {"digit": np.full(40, 11, np.uint8)}, "recording 0: expected a digit 0 to 9; found 11"),
        ([], {"samples": np.zeros(9, np.int16)}, "samples must be int16 and as many as the sum of length"),
        ([], {"take": np.zeros(3, np.uint8)}, "must have a number for each recording; found 40, 40 and 3"),
        (["data.pairs_per_digit=100000"], {}, "need as many images and a recording"),
        (["data.test_takes=0"], {}, "data.test_takes must be a whole number of at least 1; found 0"),
        (["data.sound_shape=[8,12]"], {}, r"data.sound_shape must be \[1, bands, windows\]"),
        (["data.views=2"], {}, "data.views must be null"),
    ],
)
def test_what_does_not_fit_is_one_sentence_of_recordings(spoken, overrides, arrays, said):
    with pytest.raises((TutelageError, InstantiationException), match=said):
        spoken(*overrides, **arrays)
