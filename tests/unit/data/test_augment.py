from collections import Counter

import pytest
import torch

from tutelage import seeding
from tutelage.data.augment import Augment, Flip, Shift
from tutelage.errors import TutelageError
from tutelage.runtime import devices
from tutelage.types import NO_LABEL

KEYS = torch.tensor([3, 0, 59_999, 7, 12, 1])


def images(keys, channels=3, height=6, width=5):
    """A picture that says which example it is."""
    return torch.stack(
        [torch.rand(channels, height, width, generator=torch.Generator().manual_seed(int(k))) for k in keys]
    )


def augment(seed=1):
    return Augment([Shift(2, fill=0.5), Flip(0.5)], seed)


def shifted(image, down, right, fill):
    """The oracle: pixel by pixel."""
    _, height, width = image.shape
    out = torch.full_like(image, fill)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[:, y, x] = image[:, y - down, x - right]
    return out


def test_a_picture_depends_on_its_key_alone():
    whole = augment()(images(KEYS), KEYS, view=4)
    order = torch.randperm(len(KEYS))
    assert torch.equal(augment()(images(KEYS[order]), KEYS[order], 4), whole[order])
    for i, key in enumerate(KEYS):
        assert torch.equal(augment()(images([key]), key[None], 4)[0], whole[i])


def test_seed_and_view_change_it():
    keys = torch.arange(50)
    pictures = [augment(seed)(images(keys), keys, view) for seed, view in ((1, 0), (1, 1), (2, 0))]
    for i, a in enumerate(pictures):
        assert torch.equal(augment((1, 1, 2)[i])(images(keys), keys, (0, 1, 0)[i]), a)
        for b in pictures[:i]:
            assert (a != b).flatten(1).any(1).float().mean() > 0.8


def test_it_leaves_its_input_alone():
    given = images(KEYS)
    augment()(given, KEYS, 0)
    assert torch.equal(given, images(KEYS))


@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_shift_moves_by_whole_pixels_uniformly(fill):
    keys = torch.arange(3000)
    same = images([5]).expand(len(keys), -1, -1, -1)
    candidates = {(d, r): shifted(same[0], d, r, fill) for d in range(-2, 3) for r in range(-2, 3)}
    counts = Counter()
    for picture in Augment([Shift(2, fill)], 1)(same, keys, 0):
        [offset] = [offset for offset, candidate in candidates.items() if torch.equal(picture, candidate)]
        counts[offset] += 1
    chi_squared = sum((counts[offset] - 120) ** 2 / 120 for offset in candidates)
    assert chi_squared < 51.2  # its 0.999 quantile at 24 degrees of freedom


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_flip_mirrors_as_often_as_it_is_told(probability):
    keys = torch.arange(4000)
    given = images([5]).expand(len(keys), -1, -1, -1)
    found = Augment([Flip(probability)], 1)(given, keys, 0)
    mirrored = (found == given.flip(-1)).flatten(1).all(1)
    assert torch.equal(found[~mirrored], given[~mirrored])
    assert (
        abs(float(mirrored.float().mean()) - probability) < 3.3 * (probability * (1 - probability) / 4000) ** 0.5 + 1e-9
    )


def test_steps_have_independent_chance():
    keys = torch.arange(4000)
    ramp = torch.arange(5.0).expand(len(keys), 1, 1, 5)
    found = Augment([Flip(), Flip()], 1)(ramp, keys, 0)  # independent: half of them end as they were
    assert abs(float((found == ramp).flatten(1).all(1).float().mean()) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shift(0), "at least 1; found 0"),
        (lambda: Flip(1.5), r"\[0, 1\]; found 1.5"),
        (lambda: Augment([torch.nn.Identity()], 1), "Identity is not a"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(TutelageError, match=message):
        make()


def test_a_device_that_must_wait_mirrors_the_same_pictures(monkeypatch):
    """There the number of mirrored pictures isn't known to the host, so every picture is mirrored and some are kept."""
    plain = augment()(images(KEYS), KEYS, 4)
    monkeypatch.setattr(devices, "waits", lambda device: True)
    assert torch.equal(augment()(images(KEYS), KEYS, 4), plain)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_offsets_are_the_floor_of_chance_times_their_number(pixels):
    """Chance has 24 bits; here in exact integers of Python."""
    chance = seeding.uniform(1, torch.arange(2000), 2)
    chance[:2] = torch.tensor([[0.0, 1 - 2**-24], [(2**24 // 3) / 2**24, (2**24 // 3 + 1) / 2**24]])
    offsets = (chance.double() * 2**24).long().tolist()
    index = torch.arange(float(36)).view(1, 1, 6, 6).expand(2000, -1, -1, -1)
    found = Shift(pixels)(index, chance)
    for row, (top, left) in enumerate(offsets):
        down, right = (pixels - (one * (2 * pixels + 1) >> 24) for one in (top, left))
        assert torch.equal(found[row], shifted(index[0], down, right, 0.0))


def test_labels_of_pixels_move_with_the_image():
    """The label of a pixel is its level: wherever the image went, both say the same."""
    keys = torch.arange(200)
    images = torch.stack([torch.randperm(30).reshape(1, 6, 5) for _ in keys])
    both = Augment([Shift(2, fill=1.0), Flip(0.5)], 1)
    moved, labels = both(images.float(), keys, 3)[:, 0], both.move_labels(images[:, 0], keys, 3)
    assert not torch.equal(labels, images[:, 0])
    known = labels != NO_LABEL
    assert torch.equal(moved[known].long(), labels[known])
    assert (moved[~known] == 1).all()  # the grey level of the edge
    assert 0.5 < float(known.float().mean()) < 1


def test_a_step_that_says_nothing_about_labels_is_refused():
    class Brighter:
        draws = 1

        def __call__(self, images, chance):
            return images * chance[:, :, None, None]

    with pytest.raises(TutelageError, match=r"data.augment: Brighter changes images.* move_labels"):
        Augment([Flip(), Brighter()], 1).check_moves_labels()


def test_gradients_of_a_shift_come_back_to_their_pixels():
    """By another way than the pixels of images that need no gradient, which are the same."""
    given, chance = images(KEYS), torch.rand(len(KEYS), 2, generator=torch.Generator().manual_seed(0))
    free = given.clone().requires_grad_()
    moved = Shift(2, fill=0.5)(free, chance)
    assert torch.equal(moved.detach(), Shift(2, fill=0.5)(given, chance))
    moved.sum().backward()
    stays = Shift(2)(
        torch.ones_like(given), 1 - 2**-24 - chance
    )  # shifted the other way, what came from outside is lost
    assert torch.equal(free.grad, stays)
