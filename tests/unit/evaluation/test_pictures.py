import itertools

import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.evaluation.confusion import shading
from tutelage.evaluation.pictures import (
    OTHER,
    PAPER,
    TRACK,
    TRUE,
    confusion_picture,
    dark_knowledge_picture,
    interesting,
)

DIGITS = [str(c) for c in range(10)]


def bars(picture):
    """Row by row from the top, left to right: (length as a fraction of its track, colour) of every bar."""
    pixels = np.asarray(picture).astype(int)
    kinds = {TRACK: 1, TRUE: 2, OTHER: 3}
    kind = sum(number * (pixels == colour).all(2) for colour, number in kinds.items())
    lines = []
    for line in kind:
        runs = [list(run) for inside, run in itertools.groupby(line, bool) if inside]
        lines.append([run for run in runs if len(run) > 150])
    found = []
    for line, _ in itertools.groupby(lines):  # a bar is several equal lines of pixels
        for run in line:
            filled = [k for k in run if k != 1]
            assert run == filled + [1] * (len(run) - len(filled))  # from the left end of the track, in one colour
            assert len(set(filled)) <= 1
            found.append((len(filled) / len(run), {2: TRUE, 3: OTHER}[filled[0]] if filled else None))
    return found


def softmax(logits, temperature):
    e = np.exp(np.asarray(logits, dtype=np.float64) / temperature)
    return e / e.sum(-1, keepdims=True)


def black(n, size=28, channels=1):
    return torch.zeros(n, channels, size, size)


def test_the_length_of_a_bar_is_its_probability():
    logits, names = [5.0, 3.0, -1.0, 2.0], ["ant", "bee", "cat", "dog"]
    picture = dark_knowledge_picture(black(1), torch.tensor([1]), torch.tensor([logits]), 4.0, names)
    expected = np.stack([softmax(logits, 1.0), softmax(logits, 4.0)], 1).ravel()  # class by class, T = 1 then T = 4
    found = bars(picture)
    assert [length for length, _ in found] == pytest.approx(expected, abs=0.0026)  # half a pixel of 200
    assert [colour for _, colour in found[:4]] == [OTHER, OTHER, TRUE, TRUE]


def test_the_student_stands_beside_the_teacher_at_the_same_temperature():
    teacher, student = [4.0, 0.0, 1.0], [0.0, 3.0, 1.0]
    arguments = black(1), torch.tensor([0]), torch.tensor([teacher]), 2.0, ["a", "b", "c"]
    expected = np.stack([softmax(teacher, 1.0), softmax(teacher, 2.0), softmax(student, 2.0)], 1).ravel()
    found = [length for length, _ in bars(dark_knowledge_picture(*arguments, torch.tensor([student])))]
    assert found == pytest.approx(expected, abs=0.0026)


def test_at_temperature_one_the_teacher_is_shown_once():
    picture = dark_knowledge_picture(black(1), torch.tensor([0]), torch.tensor([[1.0, 0.0]]), 1.0, ["a", "b"])
    assert len(bars(picture)) == 2


def test_examples_fill_two_columns_row_by_row():
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 0.5]])
    found = [length for length, _ in bars(dark_knowledge_picture(black(3), torch.tensor([0, 1, 1]), logits, 1.0, "ab"))]
    p = softmax(logits, 1.0)
    assert found == pytest.approx([p[0, 0], p[1, 0], p[0, 1], p[1, 1], p[2, 0], p[2, 1]], abs=0.0026)


def test_of_many_classes_the_likeliest_ten_are_shown_in_their_order():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2
    picture = dark_knowledge_picture(black(1), torch.tensor([0]), logits, 1.0, [str(c) for c in range(50)])
    p = softmax(logits[0], 1.0)
    expected = p[sorted(np.argsort(p)[-10:])]
    assert [length for length, _ in bars(picture)] == pytest.approx(expected, abs=0.0026)


def test_an_image_is_shown_pixel_by_pixel():
    image = torch.zeros(1, 3, 28, 28)
    image[0, :, 3, 5] = torch.tensor([1.0, 0.5, 0.25])
    pixels = np.asarray(dark_knowledge_picture(image, torch.tensor([0]), torch.tensor([[1.0, 0.0]]), 1.0, "ab"))
    top, left = np.argwhere((pixels == 0).all(2)).min(0)
    assert (pixels[top + 21 : top + 28, left + 35 : left + 42] == (255, 128, 64)).all()  # enlarged 7 times
    assert ((pixels[top : top + 196, left : left + 196] != 0).any(2)).sum() == 49


@pytest.mark.parametrize(("height", "width"), [(300, 224), (8, 40), (1, 1), (196, 196)])
def test_images_of_any_size_get_the_same_room(height, width):
    logits = torch.tensor([[1.0, 0.0]])
    picture = dark_knowledge_picture(torch.rand(1, 3, height, width), torch.tensor([0]), logits, 2.0, "ab")
    assert picture.size == dark_knowledge_picture(black(1), torch.tensor([0]), logits, 2.0, "ab").size
    assert picture.mode == "RGB"


def test_colours_differ_in_black_and_white():
    def grey(colour):
        return sum(colour) / 3

    assert grey(TRUE) + 80 < grey(OTHER) < grey(TRACK) - 40 < grey(PAPER) - 40


GOOD = {
    "images": black(2),
    "labels": torch.tensor([0, 1]),
    "teacher_logits": torch.zeros(2, 3),
    "temperature": 4.0,
    "class_names": ["a", "b", "c"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": black(0)}, "n at least 1"),
        ({"images": torch.zeros(2, 28, 28)}, r"found \[2, 28, 28\]"),
        ({"images": black(2, channels=4)}, r"found \[2, 4, 28, 28\]"),
        ({"labels": torch.tensor([0])}, r"labels of 2 images: expected 2 in \[0, 3\), found \[0\]"),
        ({"labels": torch.tensor([0, 3])}, r"found \[0, 3\]"),
        ({"labels": torch.tensor([0, -1])}, r"found \[0, -1\]"),
        ({"teacher_logits": torch.zeros(2, 4)}, r"teacher_logits .* expected finite ones of \[2, 3\], found \[2, 4\]"),
        ({"teacher_logits": torch.full((2, 3), float("nan"))}, "teacher_logits .* 6 not finite"),
        ({"student_logits": torch.zeros(1, 3)}, r"student_logits .* found \[1, 3\]"),
        ({"temperature": 0.0}, "temperature must be positive, found 0.0"),
        ({"temperature": float("nan")}, "temperature must be positive, found nan"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, message):
    dark_knowledge_picture(**GOOD)
    with pytest.raises(TutelageError, match=message):
        dark_knowledge_picture(**(GOOD | change))


def cell(picture, i, j, size=62):
    """The background of a cell: the colour of its corner, where nothing is written."""
    right, bottom = picture.width - 40, picture.height - 40
    return picture.getpixel((right - (10 - j) * size + 2, bottom - (10 - i) * size + 2))


def test_a_cell_is_shaded_by_the_root_of_its_share_of_the_row():
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    matrix[2, 2], matrix[2, 7], matrix[4, 4] = 75, 25, 3
    picture = confusion_picture(matrix, DIGITS)
    assert cell(picture, 4, 4) == TRUE
    assert cell(picture, 2, 7) == pytest.approx([(p + t) / 2 for p, t in zip(PAPER, TRUE, strict=True)], abs=1)  # √¼
    assert cell(picture, 2, 2) == pytest.approx(
        [p + 0.75**0.5 * (t - p) for p, t in zip(PAPER, TRUE, strict=True)], abs=1
    )
    assert cell(picture, 7, 2) == cell(picture, 0, 0) == PAPER  # an empty row is no division by zero


def test_counts_and_names_are_written_for_few_classes():
    one, other = torch.eye(10, dtype=torch.int64) * 100, torch.eye(10, dtype=torch.int64) * 200
    size = 62

    def cells(matrix):
        picture = confusion_picture(matrix, DIGITS)
        right, bottom = picture.width - 40, picture.height - 40
        return np.asarray(picture.crop((right - 10 * size, bottom - 10 * size, right, bottom)))

    differs = (cells(one) != cells(other)).any(2)  # the shades are the same: only the written counts differ
    for i, j in itertools.product(range(10), repeat=2):
        block = differs[i * size : (i + 1) * size, j * size : (j + 1) * size]
        assert block.any() == (i == j)
    letters = "bcdfghjklm"
    assert np.asarray(confusion_picture(one, list(letters))).shape[2] == 3
    assert confusion_picture(one, list(letters)).tobytes() != confusion_picture(one, DIGITS).tobytes()


@pytest.mark.parametrize("count", [2, 10, 20])
def test_long_names_stay_inside_the_picture(count):
    names = [f"{i}: a name that is far too long to be written out" for i in range(count)]
    picture = confusion_picture(torch.eye(count, dtype=torch.int64) * 10_000, names)
    far_longer = [name + " for any reader" for name in names]
    assert picture.tobytes() == confusion_picture(torch.eye(count, dtype=torch.int64) * 10_000, far_longer).tobytes()
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[:16].reshape(-1, 3), pixels[:, :16].reshape(-1, 3), pixels[:, -16:].reshape(-1, 3)])
    assert (edge == PAPER).all()


@pytest.mark.parametrize("classes", [21, 100, 1000])
def test_of_many_classes_only_the_shades_are_shown(classes):
    matrix = torch.randint(9, (classes, classes), generator=torch.Generator().manual_seed(0))
    pixels = np.asarray(confusion_picture(matrix, [""] * classes))
    size = len(pixels) // classes
    assert pixels.shape == (classes * size, classes * size, 3)
    blocks = pixels.reshape(classes, size, classes, size, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    darkness = 255 - blocks[:, 0, :, 0, 0].astype(int)
    assert (np.diff(darkness[0, matrix[0].argsort().numpy()]) >= 0).all()


@pytest.mark.parametrize(("shape", "names"), [((3, 4), 3), ((3, 3), 4), ((9,), 9), ((3, 3, 3), 3)])
def test_what_is_no_confusion_matrix_is_refused(shape, names):
    with pytest.raises(TutelageError, match=r"counts \[C, C\] and C names; found"):
        confusion_picture(torch.zeros(shape, dtype=torch.int64), ["x"] * names)


def test_pictures_are_deterministic():
    assert dark_knowledge_picture(**GOOD).tobytes() == dark_knowledge_picture(**GOOD).tobytes()


# Rows for ``interesting`` at T = 4, with what they are: three classes, the label in the comment.
SURE_PLAIN = [20.0, 0.0, 0.0]  # 0, sure; says little more when softened
SURE_TELLING = [20.0, 14.0, 0.0]  # 0, sure; class 1 shows at T = 4
UNSURE = [2.0, 1.9, 0.0]  # 0, right but unsure
SURE_ONE = [0.0, 20.0, 10.0]  # 1, sure


def pick(rows, labels, n):
    return interesting(torch.tensor(rows), torch.tensor(labels), n, 4.0).tolist()


def test_sure_and_telling_comes_before_plain_before_unsure_before_wrong():
    rows, labels = [UNSURE, SURE_PLAIN, SURE_TELLING, SURE_TELLING], [0, 0, 0, 1]
    order = [pick(rows, labels, n) for n in (1, 2, 3, 4)]
    assert [sorted(chosen) for chosen in order] == [[2], [1, 2], [0, 1, 2], [0, 1, 2, 3]]


def test_each_class_gets_its_first_before_any_gets_its_second():
    rows, labels = [SURE_TELLING, SURE_TELLING, SURE_ONE], [0, 0, 1]
    assert pick(rows, labels, 2) == [0, 2]


def test_an_unsure_example_of_a_new_class_comes_before_the_second_of_another():
    rows, labels = [SURE_TELLING, SURE_TELLING, [1.9, 2.0, 0.0]], [0, 0, 1]
    assert pick(rows, labels, 2) == [0, 2]


def test_the_chosen_come_in_the_order_of_their_labels():
    assert pick([SURE_ONE, SURE_TELLING], [1, 0], 2) == [1, 0]


def test_of_equals_the_earlier_is_chosen_and_no_more_than_there_are():
    assert pick([SURE_TELLING] * 3, [0, 0, 0], 1) == [0]
    assert pick([SURE_TELLING] * 3, [0, 0, 0], 9) == [0, 1, 2]


def test_the_temperature_decides_what_is_telling():
    """At T = 1 only the distance of the second counts; at T = 20 the seconds of ``b`` share the mass between them."""
    a, b = [20.0, 8.0, -60.0, -60.0], [20.0, 10.0, 10.0, 10.0]
    logits, labels = torch.tensor([a, b]), torch.tensor([0, 0])
    assert interesting(logits, labels, 1, 1.0).tolist() == [1]
    assert interesting(logits, labels, 1, 20.0).tolist() == [0]


def test_a_confusion_matrix_is_shaded_by_the_share_of_its_row():
    matrix = np.array([[9, 0, 7], [0, 0, 0], [0, 1, 3]])
    assert shading(matrix).tolist() == [[0.75, 0, np.sqrt(7 / 16)], [0, 0, 0], [0, 0.5, np.sqrt(3 / 4)]]
    assert shading(matrix - matrix.T, difference=True).max() == 1
    assert shading(np.zeros((2, 2)), difference=True).tolist() == [[0, 0], [0, 0]]
