"""Nothing that a file found on disk names is run: headers of checkpoints and folders of runs, read by every verb."""

import json
import os
import sys

import pytest
import torch
import yaml
from command import TINY
from made_runs import run as made_run
from safetensors.torch import save_file
from torch import nn

from tutelage.checkpoints.weights import digest, save_network
from tutelage.config.trust import vetted
from tutelage.errors import TutelageError
from tutelage.models.mlp import MLP

NET = {"_target_": "tutelage.models.mlp.MLP", "input_shape": [1, 8, 8], "widths": [4], "num_classes": 10}
DATA = {
    "_target_": "tutelage.data.digits.Digits", "num_classes": 10, "input_shape": [1, 8, 8], "batch_size": 32,
    "val_size": 100, "test_size": 100, "seed": 0, "mean": [0.3], "std": [0.4],
}  # fmt: skip
HOSTILE = [
    "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load", "torch.nn.functional.torch.load",
    "torch.nn.Module.load_state_dict", "tutelage.checkpoints.weights.torch.load",
    "tutelage.models.mlp.TutelageError.__init__",
    "tutelage.runtime.files.write_atomically", "tutelage.data.download.download", "tutelage.data.base.hashlib.sha256",
    "tutelage.sources.black_box.BlackBoxTeacher", "lightning.Trainer", "stranger_that_leaves_a_mark.Net", "joblib.load",
    "numpy.load", "pathlib.Path.touch", "site.addsitedir", "shutil.rmtree", "hydra.utils.get_object",
    "hydra.utils.call",
    "tutelage.models.timm.read_state", "tutelage.models.timm._renamed", "tutelage.data.download.urlopen",
    "tutelage.data.cifar_files.pickle.loads", "tutelage.data.idx.read_idx", "torch.nn.modules.module.torch.load",
    "torchvision.models.get_model", "torchvision.models.resnet18", "timm.create_model", "timm.models.load_checkpoint",
    "torch.jit.ScriptModule", "torch.fx.GraphModule", "torch.distributed.nn.RemoteModule", "torch.hub.os",
    "torch.nn.parallel.DataParallel",
    "tutelage.models.timm.import_module", "tutelage.data.unlabelled.NpzFile", "MLP", "", "..", "os", "tutelage.data",
]  # fmt: skip


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    (tmp_path / "stranger_that_leaves_a_mark.py").write_text(
        f"import os\nfrom torch import nn\nos.mknod({str(tmp_path / 'mark')!r})\n"
        "class Net(nn.Linear): pass\n"
        "def make() -> nn.Module: return nn.Linear(2, 2)\n"
        "def act(): pass\n"
        "class Odd: pass\n"
    )
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
    with pytest.raises(TutelageError, match=rf"a\.safetensors names {target}"):
        vetted(config, "a.safetensors")
    assert not stranger.exists()


@pytest.mark.parametrize("choice", ["mlp", "timm", "soft_tree", "resnet20"])
def test_our_networks_and_data_may_be_built(compose, choice):
    from tutelage.config import factory

    said = factory.about(factory.stage_config(compose(f"model@student={choice}", "data=mnist"), "student"), "student")
    assert vetted(said, "a.safetensors")["network"] == said["network"]


@pytest.mark.parametrize("target", ["torch.nn.Linear", "torch.nn.modules.conv.Conv2d", "torchvision.models.ResNet"])
def test_networks_of_libraries_may_be_built(target):
    assert vetted({"_target_": target}, "a.safetensors") == {"_target_": target}


def test_of_a_trusted_package_networks_may_be_built_and_nothing_else(stranger):
    name = "stranger_that_leaves_a_mark"
    for good in ("Net", "make"):
        vetted({"_target_": f"{name}.{good}"}, "a.safetensors", [name])
    for bad in ("act", "Odd", "os.system", "nn.Linear", "os"):
        with pytest.raises(TutelageError, match=rf"names {name}\.{bad}"):
            vetted({"_target_": f"{name}.{bad}"}, "a.safetensors", [name])


@pytest.mark.parametrize(
    "package", ["os", "subprocess", "builtins", "joblib", "numpy", "torch", "hydra", "a.b", "${x}"]
)
def test_libraries_can_not_be_trusted_and_no_message_says_so(package):
    with pytest.raises(TutelageError, match="trust"):
        vetted(NET, "a.safetensors", [package])
    with pytest.raises(TutelageError) as refused:
        vetted({"_target_": f"{package}.load"}, "a.safetensors")
    assert "trust=[" not in str(refused.value)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${oc.create:[{_target_: os.system}]}", "a${b", "\\${x}"])
@pytest.mark.parametrize("at", ["value", "listed", "key", "target"])
def test_interpolations_of_a_file_are_refused(text, at):
    config = {
        "value": {**NET, "widths": text}, "listed": {**NET, "widths": [text]}, "key": {**NET, text: 1},
        "target": {"_target_": text},
    }[at]  # fmt: skip
    with pytest.raises(TutelageError, match=r"a\.safetensors: interpolations are not allowed"):
        vetted(config, "a.safetensors")


def test_a_file_fetches_nothing():
    plain = vetted({"_target_": "tutelage.data.idx.IdxImages", "download": True, "mirrors": ["http://x"]}, "a")
    assert plain == {"_target_": "tutelage.data.idx.IdxImages", "download": False}
    net = {"_target_": "tutelage.models.timm.create", "pretrained": True, "checkpoint_path": "/x"}
    assert vetted(net, "a") == {"_target_": "tutelage.models.timm.create", "pretrained": False}


@pytest.mark.parametrize("config", [None, [], "x", {"a": b"x"}, {1: object()}, {"_target_": 3}, {"_target_": None}])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(TutelageError, match=r"a\.safetensors"):
        vetted(config, "a.safetensors")


def test_a_config_without_bottom_is_refused():
    config = {}
    config["again"] = config
    with pytest.raises(TutelageError, match="nested"):
        vetted(config, "a.safetensors")


# -- every verb -------------------------------------------------------------------------------------------------------


def _attacks(mark):
    """Configs that would write ``mark``, each where a network's widths or a data set's augmentation should be."""
    (mark.parent / "evil.pth").write_text(f"import os; open({str(mark)!r}, 'w')\n")
    touch = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(mark)]}]}
    created = f"{{_target_: pathlib.Path.touch, _args_: [{{_target_: pathlib.Path, _args_: ['{mark}']}}]}}"
    return {
        "touch": touch,
        "listed": [touch],
        "site": {"_target_": "site.addsitedir", "sitedir": str(mark.parent)},
        "shell": {"_target_": "os.system", "command": f"touch {mark}"},
        "alias": {"_target_": "tutelage.data.image_folder.os.system", "command": f"touch {mark}"},
        "joblib": {"_target_": "joblib.load", "filename": str(mark.parent / "evil.joblib")},
        "numpy": {"_target_": "numpy.load", "file": str(mark.parent / "evil.joblib"), "allow_pickle": True},
        "stranger": {"_target_": "stranger_that_leaves_a_mark.Net", "in_features": 1, "out_features": 1},
        "created": f"${{oc.create:[{created}]}}",
        "written": f"${{oc.decode:\"[{created}]\"}}",
    }  # fmt: skip


class _Marks:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mknod, (self.mark,)


@pytest.fixture
def attacks(stranger, tmp_path):
    import pickle

    (tmp_path / "evil.joblib").write_bytes(pickle.dumps(_Marks(stranger)))
    return _attacks(stranger)


def test_the_attacks_would_write_the_mark(attacks, stranger):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    instantiate(attacks["touch"])
    assert stranger.exists()
    stranger.unlink()
    import joblib

    joblib.load(attacks["joblib"]["filename"])
    assert stranger.exists()
    assert OmegaConf.create({"x": attacks["created"]}).x[0]._target_ == "pathlib.Path.touch"


NAMES = ["touch", "listed", "site", "shell", "alias", "joblib", "numpy", "stranger", "created", "written"]


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_runs_no_code_of_a_file(main, tmp_path, attacks, stranger, name):
    evil = attacks[name]
    abouts = (
        {"network": {**NET, "widths": evil}, "data": DATA},
        {"network": NET, "data": {**DATA, "augment": evil}},
        {"network": NET, "data": {**DATA, "unlabelled": evil}},
        {"network": evil, "data": evil},
    )
    for number, about in enumerate(abouts):
        path = tmp_path / f"{number}.safetensors"
        save_network(MLP((1, 8, 8), [4], 10), path, {"stage": "student", **about})
        answer = main("evaluate", f"checkpoint={path}", f"hydra.run.dir={number}")
        assert answer.code == 1
        assert f"{path}, " in answer.message
        assert "Traceback" not in answer.message
        assert not stranger.exists()


def test_evaluate_names_the_package_to_trust(main, tmp_path, stranger):
    net = {"_target_": "stranger_that_leaves_a_mark.Net", "in_features": 2, "out_features": 2}
    save_network(nn.Linear(2, 2), tmp_path / "a.safetensors", {"stage": "student", "network": net, "data": DATA})
    answer = main("evaluate", f"checkpoint={tmp_path / 'a.safetensors'}")
    assert "trust=[stranger_that_leaves_a_mark]" in answer.message
    assert not stranger.exists()


@pytest.mark.parametrize("about", [[], 3, {}, {"network": 3}, {"network": NET, "data": []}, {"network": None}, "{"])
def test_evaluate_of_an_odd_header_is_one_sentence(main, tmp_path, about):
    net = MLP((1, 8, 8), [4], 10)
    header = {"about": about if about == "{" else json.dumps(about), "digest": digest(net)}
    save_file(net.state_dict(), tmp_path / "a.safetensors", header)
    answer = main("evaluate", f"checkpoint={tmp_path / 'a.safetensors'}")
    assert answer.code == 1
    assert "a.safetensors" in answer.message
    assert "Traceback" not in answer.message


def test_evaluate_sends_nothing_over_the_network(main, tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.data.download.urlopen", lambda *a, **k: pytest.fail("it fetched"))
    data = {
        **{key: value for key, value in DATA.items() if key != "test_size"}, "_target_": "tutelage.data.idx.IdxImages",
        "root": str(tmp_path), "dataset": "MNIST", "download": True, "mirrors": ["http://127.0.0.1:1/x"],
    }  # fmt: skip
    path = tmp_path / "a.safetensors"
    save_network(MLP((1, 8, 8), [4], 10), path, {"stage": "student", "network": NET, "data": data})
    answer = main("evaluate", f"checkpoint={path}")
    assert answer.code == 1
    assert "data.download=true" in answer.message


@pytest.mark.parametrize("name", NAMES)
def test_report_and_status_run_no_code_of_a_run(main, tmp_path, attacks, stranger, name):
    folder = made_run(tmp_path / "runs", 0)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] = {**DATA, "augment": attacks[name], "unlabelled": attacks[name]}
    config["student"] = config["seed_of"] = attacks[name]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    hydra = folder / ".hydra" / "overrides.yaml"
    hydra.write_text(yaml.safe_dump([*yaml.safe_load(hydra.read_text()), f"student={attacks[name]}"]))
    answer = main("report", str(tmp_path / "runs"), "-o", str(tmp_path / "page"))
    assert answer.code == 0, answer.message
    assert "No examples of disagreements" in (tmp_path / "page" / "report.md").read_text()
    assert main("status", str(tmp_path / "runs")).code == 0
    assert not stranger.exists()


def test_cache_with_a_hostile_teacher_runs_nothing(main, tmp_path, attacks, stranger):
    save_network(
        MLP((1, 8, 8), [16], 10), tmp_path / "a.safetensors",
        {
            "stage": "teacher", "network": attacks["touch"],
            "data": {**DATA, "mean": [0.3053], "std": [0.376], "augment": attacks["created"]},
        },
    )  # fmt: skip
    answer = main("cache", *TINY, "loss.alpha=0.5", f"sources.teacher.source.checkpoint={tmp_path / 'a.safetensors'}")
    assert answer.code == 0, answer.message
    assert not stranger.exists()


def test_a_teacher_from_a_file_runs_nothing(tmp_path, attacks, stranger):
    from tutelage.checkpoints.weights import read_state

    path = tmp_path / "a.safetensors"
    save_network(MLP((1, 8, 8), [4], 10), path, {"stage": "teacher", "network": attacks["touch"], "data": DATA})
    assert len(read_state(path)) == 4
    torch.save({"x": _Marks(stranger)}, tmp_path / "a.pth")
    with pytest.raises(TutelageError, match=r"a\.pth"):
        read_state(tmp_path / "a.pth")
    assert not stranger.exists()
