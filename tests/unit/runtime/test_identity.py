"""A recipe's digest also depends on code and files: edited code and overwritten files make another artifact."""

import importlib
import os
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.pipeline.supervised import recipe
from tutelage.report.cells import varied
from tutelage.report.runs import Run
from tutelage.runtime import manifest
from tutelage.runtime.config_differences import differences
from tutelage.runtime.files import recipe_digest
from tutelage.runtime.identity import COSMETIC, changes, essential, files, hold, made_with, of_run, with_contents
from tutelage.runtime.json_files import write_json
from tutelage.runtime.source_code import trace

NET = """
    from torch import nn

    from .layers import act


    class Net(nn.Module):
        '''A network.'''

        def __init__(self, width=4):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), act(), nn.Linear(width, 10))

        def forward(self, x):
            return self.body(x)
"""
LAYERS = """
    from torch import nn
    from {name}.deep.acts import act  # noqa
"""
ACTS = """
    from torch import nn

    act = nn.ReLU
"""
OPTIM = """
    import torch


    def own(params, lr):
        return torch.optim.SGD(params, lr=lr, momentum=0.9)
"""


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one's own, never the same name twice: name, folder."""
    name = f"own_{uuid.uuid4().hex}"
    folder = tmp_path / "src" / name
    put(folder / "__init__.py", "")
    put(folder / "nets.py", NET)
    put(folder / "layers.py", LAYERS.format(name=name))
    put(folder / "deep" / "__init__.py", "")
    put(folder / "deep" / "acts.py", ACTS)
    put(folder / "plots.py", "import json  # draws\n")
    put(folder / "optim.py", OPTIM)
    put(folder.parent / f"{name}_script.py", f"from {name} import nets\n\n\ndef make():\n    return nets.Net(3)\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield name, folder
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def code(*targets):
    return made_with([{"_target_": target} for target in targets])


@pytest.mark.parametrize(
    ("edited", "old", "new"),
    [
        ("nets.py", "width=4", "width=5"),
        ("layers.py", "from torch import nn", "from torch import nn as n"),
        ("deep/acts.py", "nn.ReLU", "nn.Tanh"),
        ("__init__.py", "", "import torch\n"),
    ],
)
def test_an_edit_of_one_s_own_network_or_of_what_it_imports_counts(package, edited, old, new):
    name, folder = package
    before = code(f"{name}.nets.Net")
    text = (folder / edited).read_text()
    (folder / edited).write_text(text.replace(old, new) if old else text + new)
    after = code(f"{name}.nets.Net")
    assert before != after
    assert code(f"{name}_script.make") != before
    assert before["versions"] == after["versions"]
    module = ".".join([name, *edited.removesuffix(".py").split("/")]).removesuffix(".__init__")
    assert {key for key in after["code"] if after["code"][key] != before["code"].get(key)} == {module}


def test_a_single_file_counts_with_what_it_imports(package):
    name, folder = package
    before = code(f"{name}_script.make")
    put(folder / "deep" / "acts.py", ACTS.replace("ReLU", "Tanh"))
    assert code(f"{name}_script.make") != before


def test_an_edit_of_one_s_own_optimizer_function_counts(package):
    name, folder = package
    before = code(f"{name}.optim.own")
    put(folder / "optim.py", OPTIM.replace("0.9", "0.8"))
    assert code(f"{name}.optim.own") != before


@pytest.mark.parametrize(
    ("edited", "old", "new"),
    [
        ("plots.py", "import json", "import csv"),  # not imported
        ("optim.py", "0.9", "0.8"),
        ("nets.py", "'''A network.'''", "'''A better word for it.'''  # and a comment"),
    ],
)
def test_other_files_comments_and_docstrings_do_not_count(package, edited, old, new):
    name, folder = package
    before = code(f"{name}.nets.Net")
    (folder / edited).write_text((folder / edited).read_text().replace(old, new))
    assert code(f"{name}.nets.Net") == before


def test_of_a_loaded_module_what_was_loaded_counts_until_it_is_loaded_again(package):
    name, folder = package
    module = importlib.import_module(f"{name}.optim")
    before = code(f"{name}.optim.own")
    put(folder / "optim.py", OPTIM.replace("0.9", "0.85"))
    assert code(f"{name}.optim.own") == before
    importlib.reload(module)
    assert code(f"{name}.optim.own") != before


def test_a_module_without_source_counts_by_its_bytes(package):
    name, folder = package
    (folder / "compiled.py").write_bytes(b"\x00not python")
    before = code(f"{name}.compiled.f")
    (folder / "compiled.py").write_bytes(b"\x00not Python")
    assert code(f"{name}.compiled.f")["code"] != before["code"]


def test_packages_that_targets_come_from_count_by_version(monkeypatch):
    assert {"torch", "tutelage", "lightning"} == made_with({"_target_": "lightning.Trainer"})["versions"].keys()
    assert "timm" in trace(["tutelage.models.timm.anything"]).packages
    before = made_with({"_target_": "lightning.Trainer"})
    monkeypatch.setattr("torch.__version__", "9.9")
    assert made_with({"_target_": "lightning.Trainer"}) != before


def test_of_tutelage_the_parts_that_a_config_uses_count():
    every = trace([]).tutelage.keys()
    assert {"tutelage.pipeline.fit", "tutelage.training.fast_loop", "tutelage.training.module"} <= every
    assert not any(
        name.startswith(("tutelage.report", "tutelage.losses.relation.crd", "tutelage.cli.main")) for name in every
    )
    assert "tutelage.losses.relation.crd" in trace(["tutelage.losses.relation.crd.CRD"]).tutelage


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path):
    init = put(tmp_path / "w" / "init.pth", "first")
    node = {"net": {"pretrained": str(init), "widths": [4]}, "also": [str(init)]}
    before = with_contents(node)
    assert before["net"]["widths"] == [4]
    other = put(tmp_path / "elsewhere.pth", "first")
    assert with_contents({"net": {"pretrained": str(other), "widths": [4]}, "also": [str(other)]}) == before
    assert files(node).keys() == {"net.pretrained", "also[0]"}
    init.write_text("other")
    assert with_contents(node) != before


def test_a_folder_or_pattern_of_one_s_own_data_counts_by_all_of_its_files(tmp_path, monkeypatch):
    paths = [put(tmp_path / "set" / "a" / f"{i}.tar", "x") for i in range(3)]
    for value in (str(tmp_path / "set"), str(tmp_path / "set" / "*" / "*.tar")):
        node = {"data": {"train": {"_target_": "mine.Files", "root": value}}, "model": {"root": value}}
        before = with_contents(node)
        assert before["model"] == node["model"]
        assert before["data"]["train"]["root"].startswith("sha256:")
        assert files(node).keys() == {"data.train.root"}
        paths[1].write_text("longer")
        assert with_contents(node) != before
        paths[1].write_text("x")
        os.utime(paths[1], ns=(len(value), 1000 * len(value)))
        assert with_contents(node) != before
    monkeypatch.chdir(tmp_path)
    names = {"data": {"unlabelled": ["set"], "fields": {"input": "set"}, "files": "set/*/*.tar"}}  # below data.root
    assert with_contents(names) == names
    (tmp_path / "set" / "a" / "dangling").symlink_to("nowhere")
    with_contents(node)
    monkeypatch.chdir(tmp_path / "set")  # outputs lie in it
    outer = {"data": {"train": {"root": str(tmp_path)}}}
    assert with_contents(outer) == outer


def test_the_weights_of_a_package_count_by_their_content(tmp_path, monkeypatch):
    weights = put(tmp_path / "some_weights" / "net.pth", "first")
    put(tmp_path / "some_weights" / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"network": {"pretrained": "some_weights", "name": "some_weights"}}
    before = with_contents(node)
    assert before["network"]["name"] == "some_weights"
    assert files(node).keys() == {"network.pretrained/net.pth"}
    weights.write_text("other")
    assert with_contents(node) != before


def test_weights_of_the_hub_count_by_what_its_local_cache_holds(tmp_path, monkeypatch):
    """So that a repository whose main branch moved on is another network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    node = {"net": {"pretrained": "org/model"}}
    assert with_contents(node) == node  # nothing was fetched yet
    known = []
    for commit, weights in (("a" * 40, b"one"), ("b" * 40, b"two")):
        snapshot = tmp_path / "models--org--model" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (snapshot / "model.safetensors").write_bytes(weights)
        refs = snapshot.parents[1] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(commit)
        known.append(with_contents(node)["net"]["pretrained"])
        assert files(node).keys() == {"net.pretrained/config.json", "net.pretrained/model.safetensors"}
    assert known[0][0] == known[1][0]
    assert known[0][1] != known[1][1]


@pytest.mark.parametrize("name", ["a/b/c", "no name", "-", "a//b", "imagenet"])
def test_what_is_no_name_of_a_repository_is_left_as_it_is(name):
    assert with_contents({"pretrained": name}) == {"pretrained": name}


def test_a_file_that_a_callback_names_is_not_read(tmp_path):
    log = str(put(tmp_path / "log.txt", "x"))
    node = {"callbacks": {"own": {"path": log}}, "trainer": {"profiler": log}}
    assert with_contents(node) == node
    assert files({**node, "stages": {"teacher": node}}) == {}


def test_the_recipe_of_a_network_holds_its_code_and_its_files(package, compose, tmp_path):
    name, folder = package
    init = put(tmp_path / "init.pth", "first")

    def digest():
        cfg = compose(f"++teacher.net={{_target_: {name}.nets.Net, width: 4, pretrained: {init}}}")
        stage = factory.stage_config(cfg, "teacher")
        return recipe_digest(recipe(stage, "teacher", factory.data(stage)))

    first = digest()
    assert digest() == first
    init.write_text("second")
    second = digest()
    put(folder / "deep" / "acts.py", ACTS.replace("ReLU", "Tanh"))
    assert len({first, second, digest()}) == 3


# -- a run's identity -------------------------------------------------------------------------------------------------

NOTED = {"data": {"": "d"}, "file": {"sources.teacher.checkpoint": "a"}, "code": {}, "versions": {"torch": "2"}}


def begun(folder):
    put(folder / "checkpoints" / "states" / "step=1.ckpt", "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {"": "other"}}, "data;"),
        ({"file": {"sources.teacher.checkpoint": "b"}}, "file sources.teacher.checkpoint;"),
        ({"code": {"my.net": "1"}}, "code my.net;"),
        ({"versions": {"torch": "3"}, "data": {"": "x"}}, "data, versions torch;"),
        ({"weights of": {"teacher": "w"}}, "weights of teacher;"),
    ],
)
def test_a_student_is_not_trained_on_with_other_contents(tmp_path, change, named):
    hold(tmp_path, NOTED)
    hold(tmp_path, NOTED | change)  # nothing was trained yet
    begun(tmp_path)
    hold(tmp_path, NOTED | change)
    write_json(tmp_path / "identity.json", NOTED)
    with pytest.raises(TutelageError, match=f"its student was trained with other contents of {named}"):
        hold(tmp_path, NOTED | change)
    assert changes(tmp_path, NOTED) == []


def test_without_a_record_of_what_it_was_trained_with_a_student_is_trained_anew(tmp_path):
    begun(tmp_path)
    (tmp_path / "identity.json").write_text("[1]")
    hold(tmp_path, NOTED)
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "checkpoints.damaged-1" / "states").is_dir()
    assert changes(tmp_path, NOTED) == []


def test_a_run_rests_on_its_data_its_files_and_its_code(compose, tmp_path):
    weights = put(tmp_path / "teacher.pth", "w")
    found = of_run(compose(f"sources.teacher.checkpoint={weights}"), "print", {"teacher": "x"})
    assert found["data"] == {"": "print"}
    assert found["file"].keys() == {"sources.teacher.checkpoint"}
    assert found["weights of"] == {"teacher": "x"}
    assert set(found["versions"]) >= {"torch", "tutelage", "lightning"}


def test_manifests_tell_every_kind_of_change(tmp_path):
    path = put(tmp_path / "a" / "b.txt", "content")
    put(tmp_path / "c.log", "no part of it")
    manifest.write(tmp_path)
    manifest.check(tmp_path)
    put(tmp_path / "c.log", "more")
    put(tmp_path / "later.txt", "added")
    manifest.check(tmp_path)
    path.write_text("Content")
    with pytest.raises(TutelageError, match=r"b.txt is damaged: its content is not what was written"):
        manifest.check(tmp_path)
    path.write_text("cont")
    with pytest.raises(TutelageError, match=r"b.txt is damaged: expected 7 bytes, found 4"):
        manifest.check(tmp_path)
    path.unlink()
    with pytest.raises(TutelageError, match=r"b.txt is missing"):
        manifest.check(tmp_path)
    path.mkdir()
    with pytest.raises(TutelageError, match=r"b.txt is damaged: it is not a file"):
        manifest.check(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    for broken in ("", "[]", "{}", text[:-9], text.replace("7", "8"), "\0" * 20):
        (tmp_path / "manifest.json").write_text(broken)
        with pytest.raises(TutelageError, match=r"manifest.json (can't be read|is damaged)"):
            manifest.check(tmp_path)


def test_what_is_cosmetic_in_the_config_is_so_in_a_stage():
    config = {key: {} for key in ("seed",)} | {"data": {"root": "x", "name": 1}, "reuse": False}
    config |= {"stages": {"teacher": {"workers": 2, "seed": 1, "data": {"num_workers": 3, "augment": None}}}}
    assert essential(config) == {
        "seed": {}, "data": {"name": 1}, "stages": {"teacher": {"seed": 1, "data": {"augment": None}}},
    }  # fmt: skip
    assert len(set(COSMETIC)) == len(COSMETIC)


@pytest.mark.parametrize(
    ("key", "cosmetic"),
    [
        ("paths.outputs", True), ("logger", True), ("logger.wandb.offline", True), ("data.mirrors", True),
        ("stages.teacher.data.num_workers", True), ("stages.student.trainer.log_every_n_steps", True),
        ("data.rooted", False), ("loss.alpha", False), ("stages.teacher.seed", False),
    ],
)  # fmt: skip
def test_one_list_says_which_keys_are_cosmetic(tmp_path, key, cosmetic):
    """For digests, for the keys in which a message says that two configs differ, and for what a report says varied."""
    configs = [OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"])) for value in (1, 2)]
    assert (essential(configs[0]) == essential(configs[1])) == cosmetic
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(configs[0])))
    assert (key in differences(tmp_path / "config.yaml", configs[1])) == (not cosmetic)
    runs = [Run(tmp_path, overrides={key: ""}, config=config) for config in configs]
    assert (key in varied(runs)) == (not cosmetic)


def test_what_type_checkers_alone_import_is_no_part_of_the_code(tmp_path, monkeypatch):
    lines = "import typing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import typed_one\n"
    lines += "if typing.TYPE_CHECKING:\n    import typed_two\nelse:\n    import run_one\n"
    (tmp_path / "own_code.py").write_text(lines + "class Net: ...\n")
    for name in ("typed_one", "typed_two", "run_one"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert trace(["own_code.Net"]).own.keys() == {"own_code", "run_one"}


def test_what_is_imported_by_a_literal_name_is_part_of_the_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"lit{uuid.uuid4().hex[:8]}"
    put(tmp_path / name / "__init__.py", "")
    put(
        tmp_path / name / "net.py",
        f"""
        import importlib
        from importlib import import_module
        far, near = importlib.import_module("{name}.far"), import_module(".near", __package__)
        """,
    )
    for other in ("far", "near"):
        put(tmp_path / name / f"{other}.py", "value = 1")
    assert {f"{name}.far", f"{name}.near"} <= trace([f"{name}.net"]).own.keys()
