"""Teachers known only by their answers, and networks that see other images than the loader's, from the command line."""

import json

import numpy as np
import pytest
import torch
from black_boxes import asked
from command import SPLITS
from omegaconf import OmegaConf
from runs import artifacts, figures, scalars
from safetensors.torch import load_file

from tutelage.checkpoints.weights import about, load_into
from tutelage.config import factory

pytestmark = pytest.mark.slow
SHORT = ("trainer.max_epochs=2", "model@student=mlp", "student.net.widths=[8]", *SPLITS)
FLIP = "data.augment=[{_target_: tutelage.data.augment.Flip}]"
FROZEN = ("model@teacher=mlp", "teacher.net.widths=[16]", "loss.temperature=1")


def outputs(tmp_path, data):
    """The frozen teacher's logits on training and validation images, by key."""
    (teacher,) = artifacts(tmp_path / "outputs" / "artifacts", "teacher")
    path = teacher / "last.safetensors"
    net = factory.network(OmegaConf.create(about(path)["network"]), 0).net.eval()
    load_into(net, path)
    batches = [batch for split in ("train", "val") for batch in data.whole(split)]
    with torch.no_grad():
        logits = torch.cat([net(batch["input"]) for batch in batches]).numpy()
    return torch.cat([batch["key"] for batch in batches]).numpy(), logits


@pytest.mark.long
def test_recorded_outputs_teach_as_the_network_that_gave_them(main, tmp_path, compose):
    answer = main("distill", *SHORT, *FROZEN, "hydra.run.dir=frozen")
    assert answer.code == 0, answer.message
    key, logits = outputs(tmp_path, factory.data(compose(*SHORT)))
    np.savez("teacher.npz", key=key, logits=logits)
    recorded = ("sources=recorded", "sources.teacher.kind=logits", "loss.temperature=1")
    answer = main("distill", *SHORT, *recorded, "sources.teacher.path=teacher.npz", "hydra.run.dir=recorded")
    assert answer.code == 0, answer.message
    assert "Student alone" in answer.out
    assert "Teacher" not in answer.out
    live, found = figures(tmp_path / "frozen"), figures(tmp_path / "recorded")
    assert found.keys() == live.keys() - {"teacher"}
    assert found["control"]["last"]["test"]["accuracy"] == live["control"]["last"]["test"]["accuracy"]
    mine, its = (load_file(tmp_path / run / "checkpoints" / "last.safetensors") for run in ("recorded", "frozen"))
    for name, tensor in its.items():  # the live teacher answered batches of 64, to rounding the same
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-4)
    assert "student/val/agreement" in scalars(tmp_path / "recorded" / "tensorboard")

    np.savez("half.npz", key=key[: len(key) // 2], logits=logits[: len(key) // 2])
    for more, said in (
        (("sources.teacher.path=none.npz",), "none.npz: no such file"),
        ((), "sources.teacher.path"),
        (("sources.teacher.path=teacher.npz", "loss=[soft_target,fitnet]"), "recorded outputs have logits only"),
        (("sources.teacher.path=half.npz",), "half.npz: no logits for example"),
        (("sources.teacher.path=teacher.npz", FLIP), "has outputs for unaugmented images"),
    ):
        answer = main("distill", *SHORT, *recorded, *more)
        assert answer.code == 1
        assert said in answer.message


@pytest.mark.long
def test_a_callable_is_asked_once_for_each_image_by_all_jobs(main, tmp_path):
    diary = tmp_path / "diary"
    ask = f"sources.teacher.ask={{_target_: black_boxes.Linear, diary: {diary}, fail: 1}}"
    box = ("sources=black_box", ask, "sources.teacher.kind=logits", "sources.teacher.name=v1", "sources.teacher.wait=0")
    counts = []
    for run, more in (("one", "seed=0"), ("two", "loss.temperature=2"), ("three", FLIP)):
        answer = main("distill", *SHORT, *box, more, f"hydra.run.dir={run}")
        assert answer.code == 0, answer.message
        assert "teacher" not in figures(tmp_path / run)
        assert len(asked(diary)) == len(set(asked(diary)))
        counts.append(len(asked(diary)))
    assert counts[0] == counts[1] < counts[2]  # another job asks nothing, augmented images are others
    assert (tmp_path / "outputs" / "artifacts" / "asked" / "v1.sqlite").is_file()


@pytest.mark.long
def test_a_pair_that_sees_one_loader_s_images_each_in_its_own_way(main, tmp_path):
    adapter = (
        "+teacher.adapter={_target_: torch.nn.Sequential, _args_: [{_target_: tutelage.models.adapter.Resize, "
        "size: [16, 16]}, {_target_: tutelage.models.adapter.Renormalise, mean: [0.3053], std: [0.376], "
        "to_mean: [0.5], to_std: [0.5]}]}"
    )
    student = "+student.adapter={_target_: tutelage.models.adapter.Resize, size: 4, mode: area}"
    pair = (*FROZEN, adapter, "teacher.net.input_shape=[1, 16, 16]", student, "student.net.input_shape=[1, 4, 4]")
    answer = main("distill", *SHORT, *pair, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    assert metrics["teacher"]["multiply_adds"] == 256 * 16 + 16 * 10
    assert metrics["student"]["multiply_adds"] == 16 * 8 + 8 * 10
    (teacher,) = artifacts(tmp_path / "outputs" / "artifacts", "teacher")
    for role, path in (("teacher", teacher), ("student", tmp_path / "run" / "checkpoints")):
        file = path / "last.safetensors"
        assert not [name for name in load_file(file) if "adapter" in name or "scale" in name]
        assert main("evaluate", f"checkpoint={file}", f"hydra.run.dir=eval_{role}").code == 0
        found = json.loads((tmp_path / f"eval_{role}" / "metrics.json").read_text())["figures"]
        expected = metrics[role]["last"]["test"]
        assert found == {name: expected[name] for name in found}
    answer = main("distill", *SHORT, *pair, f"sources.teacher.checkpoint={teacher}/last.safetensors")
    assert answer.code == 0, answer.message  # a given teacher's figures are taken through its adapter, too
