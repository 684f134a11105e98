"""TensorBoard's pages of a finished run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tutelage.evaluation.pictures import interesting
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import SPLITS, WEIGHTS, Trained
from tutelage.pipeline import tensorboard

LABEL = torch.arange(20) % 4


class Images:
    """A split."""

    def __getitem__(self, request):
        return {"input": torch.zeros(len(request[1]), 1, 2, 2)}


def trained(chance: int) -> Trained:
    """Each of its weights says something else."""
    generator = torch.Generator().manual_seed(chance)
    said = {
        (kind, split): Predictions(torch.randn(20, 4, generator=generator), LABEL, torch.arange(20))
        for kind in WEIGHTS
        for split in SPLITS
    }
    return Trained(Path(), False, {"steps": 7}, said)


@pytest.mark.parametrize("taught", ["last", "best"])
def test_pictures_of_the_teacher_show_the_weights_that_taught(compose, tmp_path, monkeypatch, taught):
    teacher, student = trained(0), trained(1)
    data = SimpleNamespace(splits={"val": Images()}, pictures=lambda inputs: inputs, class_names=list("abcd"))
    dark, counted, confusion = [], [], tensorboard.confusion
    monkeypatch.setattr(
        tensorboard, "dark_knowledge_picture", lambda images, label, said, *_: dark.append(said) or torch.zeros(4, 4, 3)
    )
    monkeypatch.setattr(tensorboard, "confusion", lambda said: counted.append(said) or confusion(said))
    monkeypatch.setattr(tensorboard, "final_figures", lambda metrics: [])
    cfg = compose("loss.temperature=2")
    tensorboard.write_tensorboard(tmp_path, cfg, {"teacher": teacher, "student": student}, {}, data, taught)
    said = teacher.predictions[taught, "val"].logits
    assert torch.equal(dark[0], said[interesting(said, LABEL, 6, 2.0)])
    assert counted[0] is teacher.predictions[taught, "test"]
    assert counted[1] is student.predictions["last", "test"]
