"""Whose code a file may run."""

import sys

import pytest

from tutelage.errors import TutelageError
from tutelage.models.mlp import MLP
from tutelage.trust import refuse_strangers
from tutelage.weights import save_network

HOSTILE = [
    "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load", "torch.nn.functional.torch.load",
    "torch.nn.Module.load_state_dict", "tutelage.weights.torch.load", "tutelage.models.mlp.TutelageError.__init__",
    "tutelage.files.write_atomically", "tutelage.data.download.download", "tutelage.data.base.hashlib.sha256",
    "tutelage.sources.asked.Asked", "lightning.Trainer", "stranger_that_leaves_a_mark.Net",
]  # fmt: skip


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    (tmp_path / "stranger_that_leaves_a_mark.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nNet = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mark"
    sys.modules.pop("stranger_that_leaves_a_mark", None)


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("at", ["top", "below", "listed", "partial"])
def test_what_is_no_network_or_data_is_refused_and_not_imported(stranger, target, at):
    node = {"_target_": target, "x": 1}
    config = {
        "top": node,
        "below": {"_target_": "tutelage.models.mlp.MLP", "input_shape": node},
        "listed": {"_target_": "tutelage.data.digits.Digits", "augment": [node]},
        "partial": {"_target_": "tutelage.models.mlp.MLP", "widths": {**node, "_partial_": True}},
    }[at]
    with pytest.raises(TutelageError, match=f"a.safetensors wants to run {target}|cannot find {target}"):
        refuse_strangers(config, "a.safetensors")
    assert not stranger.exists()


@pytest.mark.parametrize("choice", ["mlp", "timm", "soft_tree", "resnet20"])
def test_our_networks_and_data_may_run(compose, choice):
    from tutelage import build

    said = build.about(build.stage_config(compose(f"model@student={choice}", "data=mnist"), "student"), "student")
    refuse_strangers(said, "a.safetensors")
    refuse_strangers({"_target_": "torch.nn.Linear"}, "a.safetensors")


def test_who_is_trusted_may_run_anything(stranger):
    refuse_strangers({"_target_": "stranger_that_leaves_a_mark.Net"}, "a.safetensors", ["stranger_that_leaves_a_mark"])


def test_evaluate_runs_no_code_of_a_file(main, tmp_path, stranger):
    hostile = {"_target_": "stranger_that_leaves_a_mark.Net"}
    for number, about in enumerate(({"network": hostile}, {"network": NET, "data": hostile})):
        path = tmp_path / f"{number}.safetensors"
        save_network(MLP((1, 8, 8), [4], 10), path, about)
        answer = main("evaluate", f"checkpoint={path}", f"hydra.run.dir={number}")
        assert answer.code == 1
        assert "wants to run stranger_that_leaves_a_mark.Net" in answer.message
        assert "trust=[stranger_that_leaves_a_mark]" in answer.message
        assert not stranger.exists()


NET = {"_target_": "tutelage.models.mlp.MLP", "input_shape": [1, 8, 8], "widths": [4], "num_classes": 10}
