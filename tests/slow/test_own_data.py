"""Data of one's own from the command line: resumed, cached, shared by ranks and short of labels as ours are."""

import json
import signal
from pathlib import Path

import pytest
from command import PAIR, tutelage
from runs import figures, status, weights

pytestmark = [pytest.mark.slow, pytest.mark.long]
QUICK = (*PAIR, "trainer.max_epochs=2", "logger=none", "callbacks.progress=null", "data=dataset", "data.val_size=100")
TRAIN = "data.train={_target_: own_data.Pictures}"
OWN = (*QUICK, TRAIN, "data.test={_target_: own_data.Pictures, part: test}")
ROTATED = "data.train_transform={_target_: torchvision.transforms.v2.RandomRotation, degrees: 20}"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A command in a process of its own, in one folder, so that artifacts are shared."""
    folder = tmp_path_factory.mktemp("own")

    def run(*overrides, check=True):
        name = overrides[-1].partition("=")[2]
        return tutelage("distill", *OWN, *overrides, cwd=folder, check=check), folder / name

    return run


@pytest.fixture(scope="module")
def whole(command):
    _, folder = command(ROTATED, "data.views=2", "hydra.run.dir=whole")
    return folder


def student(folder):
    found = weights(folder / "checkpoints")
    assert found
    return {name: digest for name, digest in found.items() if name.startswith(("last", "best"))}


def test_a_killed_run_goes_on_to_the_same_bits(command, whole):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {whole.parent / 'm'}}}"
    often = ("callbacks.recovery.every_n_steps=6", ROTATED, "data.views=2", harm, "hydra.run.dir=killed")
    done, folder = command(*often, check=False)
    assert done.returncode == -signal.SIGKILL
    command(*often)
    assert student(folder) == student(whole)
    assert figures(folder)["student"] == figures(whole)["student"]


def test_workers_make_the_same_bits(command, whole):
    _, folder = command(ROTATED, "data.views=2", "data.num_workers=2", "hydra.run.dir=workers")
    assert student(folder) == student(whole)


def test_a_cached_teacher_says_what_the_live_one_says(command, whole):
    _, folder = command(ROTATED, "data.views=2", "sources=cached", "sources.teacher.views=2", "hydra.run.dir=cached")
    assert student(folder) == student(whole)


def test_at_alpha_0_the_student_is_the_control(command):
    _, folder = command(ROTATED, "data.labelled=100", "loss.alpha=0", "hydra.run.dir=zero")
    found = figures(folder)
    for weights_of in ("last", "best"):
        mine, alone = (found[role][weights_of]["test"] for role in ("student", "control"))
        assert mine["nll"] == alone["nll"]


def test_two_ranks_are_one_process(command, whole):
    _, folder = command(
        ROTATED, "data.views=2", "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=two",
    )  # fmt: skip
    for split in ("val", "test"):
        one, two = (figures(place)["student"]["last"][split] for place in (whole, folder))
        assert two == pytest.approx(one, rel=1e-3)


def test_the_file_carries_the_names_and_is_evaluated(main, command, whole):
    path = whole / "checkpoints" / "last.safetensors"
    refused = main("evaluate", f"checkpoint={path}", "hydra.run.dir=no")
    assert refused.code == 1
    assert "names own_data.Pictures" in refused.message
    answer = main("evaluate", f"checkpoint={path}", "trust=[own_data]", "hydra.run.dir=measured")
    assert answer.code == 0, answer.message
    found = json.loads(Path("measured/metrics.json").read_text())
    assert found["about"]["class_names"][3] == "three"
    assert found["figures"]["accuracy"] == figures(whole)["student"]["last"]["test"]["accuracy"]
    assert status(whole)["state"] == "COMPLETE"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("data.train={_target_: own_data.Dicts}", "data.fields={input: imag, label: fine_label}"),
            "did you mean 'image'?",
        ),
        (("data.train={_target_: own_data.Nothing}",), "Nothing"),
        (("data.train={_target_: own_data.Listed, samples: []}",), "data.train: the dataset Listed is empty"),
        ((TRAIN, "data.num_classes=5"), "data.train: sample 6: its label is 6; expected 0 to 4"),
        ((TRAIN, "data.tran_transform=1"), "train_transform"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_trained(main, tmp_path, change, said):
    answer = main("distill", *QUICK, *change, "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert "raised while resolving" not in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_train_is_needed(main):
    answer = main("distill", "data=dataset", "hydra.run.dir=run")
    assert answer.code == 1
    assert "data.train=… is needed" in answer.message


STREAM = (
    "data=streamed", "data.train={_target_: own_data.Stream}", "data.val={_target_: own_data.Pictures, part: small}",
    "data.test={_target_: own_data.Pictures, part: test}", "data.num_classes=10", "data.length=300", "data.buffer=64",
    "loss.alpha=.9", "data.batch_size=20",
)  # fmt: skip


def test_a_stream_is_cached_resumed_and_shared_by_workers_to_the_same_bits(tmp_path):
    def run(*overrides, check=True):
        common = (*PAIR, "trainer.max_epochs=2", "logger=none", "callbacks.progress=null", *STREAM)
        done = tutelage("distill", *common, *overrides, cwd=tmp_path, check=check)
        return done, tmp_path / overrides[-1].partition("=")[2]

    _, live = run("hydra.run.dir=live")
    _, kept = run("sources=cached", "data.num_workers=2", "hydra.run.dir=kept")
    assert student(kept) == student(live)
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 22, marker: {tmp_path / 'm'}}}"
    killed = ("callbacks.recovery.every_n_steps=6", harm, "hydra.run.dir=killed")
    done, folder = run(*killed, check=False)
    assert done.returncode == -signal.SIGKILL
    run(*killed)
    assert student(folder) == student(live)
