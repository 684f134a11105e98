"""Teachers of other kinds than one frozen network, from the command line."""

import json

import pytest
import torch
from command import TINY
from runs import artifacts, figures
from safetensors.torch import load_file

from tutelage.checkpoints.weights import about, digest, read_state

pytestmark = pytest.mark.slow


def store(folder, kind):
    return artifacts(folder / "outputs" / "artifacts", kind)


@pytest.mark.long
def test_an_ensemble_is_the_mean_of_its_members_which_others_share(main, tmp_path):
    quick = ("logger=none", "callbacks.progress=null")
    assert main("distill", *TINY, *quick, "hydra.run.dir=alone").code == 0
    answer = main("distill", *TINY, *quick, "sources=ensemble", "ensemble.size=3", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    teachers = store(tmp_path, "teacher")
    assert len(teachers) == 3  # the one that taught alone is a member
    assert len(store(tmp_path, "control")) == 1
    [ensemble] = store(tmp_path, "ensemble")
    said = [load_file(folder / "predictions.safetensors")["last.test.logits"].double() for folder in teachers]
    expected = torch.stack([z.softmax(1) for z in said]).mean(0)
    found = load_file(ensemble / "predictions.safetensors")["last.test.logits"].double().softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    metrics = figures(tmp_path / "run")
    label = load_file(ensemble / "predictions.safetensors")["last.test.label"]
    assert metrics["teacher"]["last"]["test"]["errors"] == int((expected.argmax(1) != label).sum())
    assert metrics["student"]["last"] != figures(tmp_path / "alone")["student"]["last"]


@pytest.mark.long
def test_an_early_stopped_teacher_is_one_of_the_epochs_of_one_training(main, tmp_path):
    quick = ("logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep", "hydra.sweep.subdir='${hydra.job.num}'")
    assert main("distill", "-m", *TINY, *quick, "stages.teacher.weights=0,1").code == 0
    [teacher] = store(tmp_path, "teacher")
    states = [digest(read_state(teacher / "epochs" / f"{epoch}.safetensors")) for epoch in (0, 1)]
    assert states[0] != states[1] == digest(read_state(teacher / "last.safetensors"))
    given = {digest(read_state(folder / "last.safetensors")) for folder in store(tmp_path, "given")}
    assert given == set(states)
    first, second = (figures(tmp_path / "sweep" / str(job))["teacher"]["last"]["test"]["nll"] for job in (0, 1))
    assert first > second
    answer = main("distill", *TINY, "stages.teacher.weights=2", "hydra.run.dir=late")
    assert answer.code == 1
    assert "stages.teacher.weights=2: the teacher has the epochs 0 to 1" in answer.message


@pytest.mark.long
def test_a_chain_teaches_one_by_one_and_is_found_again(main, tmp_path):
    command = ("distill", *TINY, "+model@assistants.middle=mlp", "assistants.middle.net.widths=[12]")
    answer = main(*command, "generations=1", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    sizes = {name: entry["parameters"] for name, entry in metrics["chain"].items()}
    assert sizes == {"teacher": 64 * 16 + 16 + 170, "middle": 64 * 12 + 12 + 130}
    told = json.loads((tmp_path / "run" / "artifacts.json").read_text())
    assert set(told) == {"chain.teacher", "chain.middle", "teacher", "control", "student"}
    curves = {path.name for path in (tmp_path / "run" / "tensorboard").iterdir() if path.is_dir()}
    assert curves == {"teacher", "middle", "generation1", "control", "student", "final"}
    assert metrics["teacher"]["parameters"] == metrics["student"]["parameters"] == 64 * 8 + 8 + 90  # born again
    assert metrics["generations"]["count"] == 2
    made = {
        about(folder / "last.safetensors")["network"]["net"]["widths"][0]: folder
        for folder in store(tmp_path, "assistant")
    }
    assert made.keys() == {12, 8}
    taught = json.loads((made[8] / "recipe.json").read_text())
    assert taught["weights"] == [digest(read_state(made[12] / "last.safetensors"))]
    assert "Generation" not in answer.out
    assert "Last teacher" in answer.out.replace("\n", " ")
    assert main(*command, "hydra.run.dir=without").code == 0  # the same middle teaches the student itself
    assert len(store(tmp_path, "assistant")) == 2
    assert len(store(tmp_path, "teacher")) == 1


def test_the_mean_of_generations_is_theirs(main, tmp_path):
    assert main("distill", *TINY, "logger=none", "generations=2", "hydra.run.dir=run").code == 0
    said = [*store(tmp_path, "assistant"), tmp_path / "run" / "checkpoints"]
    read = [load_file(folder / "predictions.safetensors") for folder in said]
    mean = torch.stack([one["last.test.logits"].double().softmax(1) for one in read]).mean(0)
    errors = int((mean.argmax(1) != read[0]["last.test.label"]).sum())
    assert figures(tmp_path / "run")["generations"]["last"]["test"]["errors"] == errors


def test_a_chain_without_a_network_to_begin_with_is_refused(main, tmp_path):
    answer = main("distill", *TINY, "sources=ema_teacher", "generations=1")
    assert answer.code == 1
    assert "need a teacher that is a network" in answer.message


@pytest.mark.long
def test_a_generation_that_reuses_its_teacher_s_classifier_teaches_the_next(main, tmp_path):
    quick = ("logger=none", "callbacks.progress=null", "trainer.max_epochs=1", "hydra.run.dir=run")
    answer = main("distill", *quick, "model@teacher=vgg4", "model@student=vgg4", "loss=simkd", "generations=1")
    assert answer.code == 0, answer.message
    [generation] = store(tmp_path, "assistant")
    assert "tutelage.models.reused.reused" in str(about(generation / "last.safetensors")["network"])
