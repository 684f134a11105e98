"""The students of a budget: their overrides, the commands over them, and which of them are listed."""

import shlex

import pytest
from omegaconf import OmegaConf

from tutelage.config.composed import jobs_of_sweep
from tutelage.errors import TutelageError
from tutelage.pipeline.budget import Affordable, _nearest, _of_distill
from tutelage.pipeline.candidates import Candidate, candidates, commands

FAMILIES = {
    "mlp": "model@student=mlp student.net.widths=[8],[16,16]",
    "text": "model@student=text_cnn student.net.width=16,32 student.net.maps=4,8",
    "vgg": "model@student=vgg8,vgg11",
}


def config(**values):
    return OmegaConf.create({"students": FAMILIES, "families": None, "timm": None, **values})


def test_a_family_is_all_combinations_of_its_values():
    found = candidates(config())
    assert [one.name for one in found] == [
        "mlp widths=[8]", "mlp widths=[16,16]", "text_cnn width=16 maps=4", "text_cnn width=16 maps=8",
        "text_cnn width=32 maps=4", "text_cnn width=32 maps=8", "vgg8", "vgg11",
    ]  # fmt: skip
    assert [one.model for one in found[-2:]] == ["vgg8", "vgg11"]


def test_the_commands_train_exactly_the_chosen_students():
    chosen = [one for one in candidates(config()) if one.name != "text_cnn width=32 maps=4"]
    made = commands(["data=digits"], chosen, "outputs/budget/a b")
    lines = [shlex.split(line) for line in made]
    assert all(line[:4] == ["tutelage", "distill", "-m", "data=digits"] for line in lines)
    assert len({line[-1] for line in lines}) == len(lines) == 4  # widths of text_cnn differ in their maps
    jobs = [
        tuple(word for word in job if "student" in word)
        for line in lines
        for job in jobs_of_sweep([word for word in line[3:] if not word.startswith("hydra.")])
    ]
    assert sorted(jobs) == sorted(one.words for one in chosen for _ in range(3))  # seeds


def test_a_seed_that_is_given_is_the_first_of_the_three():
    (line,) = commands(["seed=3", "data=digits"], [Candidate("mlp", "mlp", ("model@student=mlp", "a=1"))], "x", 3)
    assert shlex.split(line)[3:] == [
        "data=digits",
        "model@student=mlp",
        "a=1",
        "seed=range(3,6)",
        "hydra.sweep.dir=x/mlp",
    ]


def test_the_nearest_to_the_target_of_each_family_are_listed():
    sizes = {"mlp": (10, 30, 20), "vgg": (25,)}
    found = [
        (Candidate(name, name, (str(count),)), Affordable(name, (), f"{name} {count}", count, 4 * count, 1, 0.1))
        for name, counts in sizes.items()
        for count in counts
    ]
    assert [entry.name for _, entry in _nearest(found, "parameters", 2)] == ["mlp 30", "vgg 25", "mlp 20"]
    assert len(_nearest(found, "bytes", None)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"families": ["mpl"]}, "families: there is no 'mpl'; did you mean 'mlp'"),
        ({"families": []}, "leaves no student to try"),
        (
            {"students": {"mine": "student.net.widths=[8]"}},
            "students.mine must be overrides of distill that begin with",
        ),
        ({"students": {"mine": "model@student=mlp a=[8"}}, "students.mine: "),
        ({"families": [], "timm": "resnet10q"}, "has no network 'resnet10q'; did you mean"),
    ],
)
def test_what_names_no_student_is_refused(values, message):
    with pytest.raises(TutelageError, match=message):
        candidates(config(**values))


def test_overrides_of_the_verb_are_no_overrides_of_distill():
    words = ["data=mnist", "parameters=10", "+students.a=b", "seed=3", "hydra.run.dir=x", "~data.augment"]
    assert _of_distill(words) == ["data=mnist", "seed=3", "~data.augment"]
    for word in ("model@student=mlp", "student.net.widths=[8]", "+student.adapter=own"):
        with pytest.raises(TutelageError, match="the student is what budget looks for"):
            _of_distill([word])
