"""Graphs from the command line: a perceptron that is asked for rows of features, figures of both settings."""

import json

import pytest
import torch
from made_graph import write

import tutelage as tt
from tutelage.data.graph.files import read_graph

pytestmark = pytest.mark.slow
JOB = (
    "distill", "data=graph", "data.path=made.npz", "data.train_per_class=8", "data.val_per_class=8",
    "model@teacher=gcn", "teacher.net.widths=[16]", "student.net.widths=[16]", "loss.temperature=1",
    "optimizer.lr=0.05", "logger=none", "callbacks.progress=null",
)  # fmt: skip


@pytest.mark.long
def test_a_graph_network_teaches_a_perceptron_that_needs_no_graph(main, tmp_path):
    write(tmp_path / "made.npz")
    answer = main(*JOB, "loss.alpha=1", "data.inductive=0.3", "trainer.max_epochs=10", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    figures = {role: found[role]["last"]["test"]["accuracy"] for role in ("teacher", "control", "student")}
    assert figures["teacher"] > 0.8
    assert figures["student"] > figures["control"] + 0.03
    net = tt.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert net.classes == ["a", "b", "c"]
    graph, labels, _ = read_graph(tmp_path / "made.npz")
    right = net(graph.features).argmax(1) == labels
    assert right.float().mean() > figures["control"]
    path = next((tmp_path / "outputs" / "artifacts" / "teacher").glob("[!.]*/last.safetensors"))
    fields = {name.removeprefix("graph."): value for name, value in graph.fields().items()}
    assert tt.load(path)(node=torch.tensor([3, 4]), **fields).shape == (2, 3)
    measured = {}
    for tested in ("held_out", "observed"):  # by one network, in the whole graph and in that of training
        answer = main("evaluate", f"checkpoint={path}", f"+data.tested={tested}", f"hydra.run.dir={tested}")
        assert answer.code == 0, answer.message
        measured[tested] = json.loads((tmp_path / tested / "metrics.json").read_text())["figures"]
    assert measured["held_out"]["accuracy"] == figures["teacher"]
    assert measured["observed"]["errors"] != measured["held_out"]["errors"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=graph", "data.path=nowhere.npz"], "data.path: there is no file"),
        (["data=digits", "model@teacher=gcn"], "GCN reads the field 'node', which a batch does not have"),
        (["stages.teacher.seed=3"], "stages.teacher.data.split_seed: must equal the student's"),
        (["data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"], "augment"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(main, tmp_path, overrides, said):
    write(tmp_path / "made.npz")
    job = JOB if not overrides[0].startswith("data=") else JOB[:1]
    answer = main(*job, "trainer.max_epochs=1", *overrides)
    assert said in answer.message + answer.out
