"""Teachers that come as files, from the command line: nothing trains before it is clear that the file can be meant."""

import signal

import pytest
import torch
from command import SPLITS, TINY
from odd_nets import Plain
from runs import artifacts, figures, status
from safetensors.torch import load_file

from tutelage.checkpoints.weights import read_state
from tutelage.config import factory

pytestmark = [pytest.mark.slow, pytest.mark.long]
QUICK = ("logger=none", "callbacks.progress=null", "hydra.run.dir=run")


@pytest.fixture
def teacher(main, tmp_path):
    """The folder of a trained teacher."""
    answer = main("distill", *TINY, *QUICK[:2], "hydra.run.dir=first")
    assert answer.code == 0, answer.message
    [folder] = artifacts(tmp_path / "outputs" / "artifacts", "teacher")
    return folder


def test_a_teacher_made_under_another_normalisation_is_refused_and_its_adapter_mends_it(main, tmp_path, teacher):
    given = (*TINY, *QUICK, f"sources.teacher.checkpoint={teacher}/last.safetensors", "paths.artifacts=other")
    answer = main("distill", *given, "data.mean=[0.9]", "data.std=[0.1]")
    assert answer.code == 1
    assert "mean [0.3053] and std [0.376]" in answer.message
    assert not list((tmp_path / "other").rglob("*.safetensors"))
    line = next(line for line in answer.message.splitlines() if "Renormalise" in line).strip().strip("'")
    answer = main("distill", *given, "data.mean=[0.9]", "data.std=[0.1]", line)
    assert answer.code == 0, answer.message
    expected = figures(tmp_path / "first")["teacher"]["last"]["test"]
    assert figures(tmp_path / "run")["teacher"]["last"]["test"] == pytest.approx(expected, rel=1e-5)
    assert (
        f"{100 * figures(tmp_path / 'run')['teacher']['last']['val']['accuracy']:.2f} % on 300 validation" in answer.out
    )


def test_a_plain_module_with_chosen_weights_teaches_and_is_measured_before_the_control_trains(main, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "plain.yaml").write_text("_target_: odd_nets.Plain\n")
    states = {who: {f"net.{n}": x for n, x in Plain().state_dict().items()} for who in ("model", "ema")}
    states["ema"]["net.layers.3.bias"] = torch.arange(10.0) * 1e6  # says 9 to everything
    torch.save({**states, "epoch": 3}, tmp_path / "w.ckpt")
    short = ("trainer.max_epochs=1", "model@teacher=plain", "model@student=mlp", *SPLITS)
    given = ("--config-dir", "mine", *short, "sources.teacher.checkpoint=w.ckpt")
    answer = main("distill", *given, *QUICK)
    assert answer.code == 1
    assert "2 different sets of weights that fit Plain" in answer.message
    answer = main("distill", *given, *QUICK, "sources.teacher.key=ema")
    assert answer.code == 0, answer.message
    log = answer.out
    assert "weights loaded from key 'ema', prefix 'net.'" in log
    assert "NO BETTER THAN CHANCE: teacher w.ckpt" in log
    assert figures(tmp_path / "run")["teacher"]["last"]["val"]["errors"] > 250
    answer = main("distill", *given[:-1], "hydra.run.dir=trained", *QUICK[:2])  # and one is trained here
    assert answer.code == 0, answer.message


def test_a_network_that_is_built_with_its_weights_teaches_as_it_is(main, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "ready.yaml").write_text("_target_: odd_nets.Plain\n")
    short = ("trainer.max_epochs=1", "model@teacher=ready", "model@student=mlp", *SPLITS, "sources.teacher.train=false")
    planned = main("plan", "--config-dir", "mine", *short)
    assert planned.code == 0, planned.message
    trained = [line.split()[1] for line in planned.out.splitlines() if line.split()[:1] == ["train"]]
    assert sorted(trained) == ["control", "student"]
    answer = main("distill", "--config-dir", "mine", *short, *QUICK)
    assert answer.code == 0, answer.message
    assert "NO BETTER THAN CHANCE: teacher odd_nets.Plain" in answer.out
    [folder] = artifacts(tmp_path / "outputs" / "artifacts", "given")
    assert not artifacts(tmp_path / "outputs" / "artifacts", "teacher")
    assert figures(tmp_path / "run")["teacher"]["last"]["val"]["errors"] > 200
    again = main("distill", "--config-dir", "mine", *short, *QUICK[:2], "hydra.run.dir=again")
    assert again.code == 0, again.message
    assert artifacts(tmp_path / "outputs" / "artifacts", "given") == [folder]


def test_a_member_of_an_ensemble_has_its_own_prefix(main, tmp_path, teacher):
    state = read_state(teacher / "last.safetensors")
    both = {f"one.{name}": x for name, x in state.items()} | {f"two.{name}": x + 1 for name, x in state.items()}
    torch.save(both, tmp_path / "both.pt")
    (tmp_path / "mine" / "sources").mkdir(parents=True)
    member = "{{_target_: tutelage.sources.frozen.Frozen, net: '${{teacher}}', checkpoint: both.pt, prefix: {}}}"
    members = ", ".join(member.format(who) for who in ("one", "two"))
    yaml = f"teacher: {{_target_: tutelage.sources.ensemble.Ensemble, members: [{members}]}}\n"
    (tmp_path / "mine" / "sources" / "two.yaml").write_text(yaml)
    answer = main("distill", "--config-dir", "mine", *TINY, *QUICK, "sources=two")
    assert answer.code == 0, answer.message
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "given")) == 2


def test_names_of_another_implementation_teach_and_a_part_of_them_starts_a_student(main, tmp_path, teacher):
    state = read_state(teacher / "last.safetensors")
    first = next(iter(state)).rpartition(".")[0]
    torch.save({"ema": {f"net.{name.replace(first, 'stem')}": x for name, x in state.items()}}, tmp_path / "w.pt")
    file = "file: w.pt, key: ema, strict: false"
    same = [one.replace("[8]", "[16]") for one in TINY]  # the student is the teacher's network
    given = (*same, *QUICK, "sources.teacher.checkpoint=w.pt", f"+student.pretrained={{{file}}}")
    answer = main("distill", *given)
    assert answer.code == 1
    assert "missing from the file (2): " + f"{first}.bias; {first}.weight" in answer.message
    assert "unexpected in the file (2): stem.bias; stem.weight" in answer.message
    answer = main("distill", *given, f"sources.teacher.rename={{stem: {first}}}")
    assert answer.code == 0, answer.message
    assert "w.pt: weights loaded from key 'ema', prefix 'net.'" in answer.out
    assert "student: weights loaded from w.pt: key 'ema', prefix 'net.'; 2 of the network's 4 tensors" in answer.out
    (tmp_path / "w.pt").unlink()
    answer = main("evaluate", "checkpoint=run/checkpoints/last.safetensors")  # what it started from is not needed
    assert answer.code == 0, answer.message


def test_a_teacher_s_file_that_changes_under_a_run_is_named_before_and_after_its_end(cli, compose, tmp_path):
    def write(seed):
        torch.save(factory.network(compose(*TINY).teacher, seed).net.state_dict(), tmp_path / "w.pt")

    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {tmp_path / 'struck'}}}"
    states = "callbacks.recovery.every_n_steps=6"
    command = ("distill", *TINY, *QUICK, "sources.teacher.checkpoint=w.pt", states, harm)
    write(0)
    assert cli(*command, check=False).returncode == -signal.SIGKILL
    begun = sorted((tmp_path / "run" / "checkpoints" / "states").iterdir())
    assert begun
    write(1)
    done = cli(*command, check=False)
    assert done.returncode == 1
    assert "its student was trained with other contents of" in done.stderr
    assert "file sources.teacher.checkpoint" in done.stderr
    assert sorted((tmp_path / "run" / "checkpoints" / "states").iterdir()) == begun
    write(0)  # the file that it began with: it goes on
    cli(*command)
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    said = (tmp_path / "run" / "metrics.json").read_bytes()
    write(1)
    done = cli(*command, check=False)
    assert done.returncode == 1
    assert "holds a finished run that was made with other contents of" in done.stderr
    assert "file sources.teacher.checkpoint" in done.stderr
    assert (tmp_path / "run" / "metrics.json").read_bytes() == said


def test_a_file_of_outputs_is_measured_before_training_and_its_columns_go_by_name(main, tmp_path, teacher):
    said = load_file(teacher / "predictions.safetensors")
    parts = [(said[f"last.{split}.key"], said[f"last.{split}.logits"]) for split in ("train", "val")]
    key, logits = (torch.cat(both) for both in zip(*parts, strict=True))
    rows = [",".join([str(k), *map(repr, row)]) for k, row in zip(key.tolist(), logits.flip(1).tolist(), strict=True)]
    given = (*TINY, *QUICK[:2], "sources=recorded", "sources.teacher.path=t.csv", "sources.teacher.kind=logits")
    for names, right in ((range(9, -1, -1), True), (range(10), False)):
        (tmp_path / "t.csv").write_text("\n".join([",".join(["key", *map(str, names)]), *rows]) + "\n")
        answer = main("distill", *given, f"hydra.run.dir={right}")
        assert answer.code == 0, answer.message
        assert "examples" in answer.out.split("control epoch")[0]
        assert ("NO BETTER THAN CHANCE" in answer.out) != right
