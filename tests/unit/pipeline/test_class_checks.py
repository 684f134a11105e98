"""Classes that can't be learned or measured are said before anything is trained."""

from types import SimpleNamespace

import pytest
import torch
from command import TINY
from picture_folders import folder, write

from tutelage.config import factory
from tutelage.pipeline.class_checks import warn_of_classes, warn_of_unmeasured_classes


def data(train, val, test, classes=None):
    splits = {name: SimpleNamespace(labels=torch.tensor(labels)) for name, labels in zip(
        ("train", "val", "test"), (train, val, test), strict=True
    )}  # fmt: skip
    return SimpleNamespace(
        splits=splits,
        num_classes=3,
        class_names=["cat", "dog", "elk"],
        listed=True,
        transfer=SimpleNamespace(classes=classes),
    )


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (([0, 0, 0], [0, 1], [2, 1]), ["ALL 3 LABELS OF train ARE OF ONE CLASS (cat, of 3 classes)",
                                       "no training example has a label of 2 classes", "(dog, elk; 3 examples there)"]),
        (([0, 1, 2], [1, 1], [0, 2]), ["ALL 2 LABELS OF val ARE OF ONE CLASS (dog"]),
        (([0, 1, -100], [0, 1], [2, 1]), ["no training example has a label of 1 class that validation", "(elk; 1 ex"]),
        (([0, 1, 2], [0, 1], [2, 1]), []),
        (([0, 1], [0, 1], [0, 1]), []),
        (([-100, -100], [0, 1], [2, 1]), []),
    ],
)  # fmt: skip
def test_a_single_class_and_classes_without_a_training_label_are_named(splits, said, caplog):
    warn_of_classes(data(*splits))
    assert len(caplog.records) == (0 if not said else 1 + ("no training" in "".join(said[1:])))
    assert all(one in caplog.text for one in said), caplog.text


def test_classes_that_were_left_out_on_purpose_are_not(caplog):
    warn_of_classes(data([0, 0], [0, 1], [2, 1], classes=[0]))
    assert not caplog.records


def test_real_data_are_counted(compose, caplog):
    warn_of_classes(factory.data(factory.stage_config(compose("data.labelled=1"), "student")))
    assert "ALL 1 LABELS OF train ARE OF ONE CLASS" in caplog.text
    assert "no training example has a label of 9 classes" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+stages.student.trainer.precision=foo"], "precision"),
        (["+stages.student.trainer.gradient_clip_algorithm=foo"], "gradient_clip_algorithm"),
        (["+stages.student.trainer.max_steps=3"], "trainer.max_steps=3: the student is validated for the first time"),
        (["+stages.control.trainer.max_steps=0"], "trainer.max_steps=0: the control is validated for the first time"),
        (["+stages.student.callbacks.ema={_target_: tutelage.training.callbacks.ema.Ema, decay: 3}"], "ema.decay"),
        (["+trainer.overfit_batches=1"], "trainer.overfit_batches=1 is not supported"),
    ],
)
def test_what_a_later_stage_refuses_is_said_before_the_teacher_is_trained(main, tmp_path, overrides, said):
    answer = main("distill", *TINY, *overrides, "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert "bug in Tutelage" not in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_and_before_a_stack_trains_one(main, tmp_path):
    sweep = ("-m", "launcher=stacked", "loss.alpha=0.5,0.9", "hydra.sweep.dir=sweep")
    answer = main("distill", *sweep, *TINY, "+stages.student.trainer.max_steps=3")
    assert answer.code == 1
    assert "trainer.max_steps=3: the student is validated for the first time" in answer.message + answer.out
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(("size", "absent"), [(2, True), (9, False)])
def test_a_split_that_lacks_a_class_is_told(tmp_path, caplog, size, absent):
    write(tmp_path, {"train": 6, "test": 1})
    data = folder(tmp_path, val_size=size)
    data.setup()
    warn_of_unmeasured_classes(data)
    assert ("ImageFolder: the val split, of 2 examples, has none of " in caplog.text) == absent
    assert ("bird" in caplog.text or "cat" in caplog.text or "dog" in caplog.text) == absent
    assert "the test split" not in caplog.text
