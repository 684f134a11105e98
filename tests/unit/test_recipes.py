"""Every key of the config changes the digest of what it makes, or stands in the one list of those that don't."""

import re
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from safetensors.torch import save_file

from tutelage.config import factory
from tutelage.pipeline.supervised import recipe
from tutelage.pipeline.teacher_cache import recipe_of_signals
from tutelage.runtime import identity
from tutelage.runtime.files import recipe_digest
from tutelage.runtime.job import _resolved
from tutelage.runtime.source_code import Traced

# Key (a pattern; the first that fits) → what it changes: teacher, control, signals of the teacher, the run itself.
EXPECTED = {
    r"paths\..*|reuse|logger\..*|callbacks\.(progress|recovery)\..*|stages\.teacher\.workers": "",
    r"data\.(eval_batch_size|num_workers)|trainer\.(log_every_n_steps|enable_model_summary)": "",
    r"stages\.student\.(phases|turns)": "run",  # the control's epochs follow theirs: one phase has as many
    r"seed|student\..*|stages\.(student|control)\..*": "control run",
    r"teacher\..*": "teacher signals run",
    r"sources\.teacher\.(_target_|net)": "signals run",
    r"sources\..*|assistants|generations|stages\.teacher\.weights": "run",
    r"stages\.teacher\..*": "teacher run",
    r"task\..*": "teacher control run",
    r"loss\.terms\.hard\..*": "teacher control run",
    r"loss\.(class_weights|where)": "teacher control run",
    r"loss\.label_smoothing": "control run",
    r"loss\..*": "run",
    r"trainer\.max_epochs|data\.(labelled|repeat_labelled|classes|unlabelled|made)": "control run",  # the teacher's own
    r"data\.(mean|std|num_classes|num_outputs|input_shape)": "teacher control signals run",
    r"(optimizer|scheduler|trainer|data|callbacks)\..*": "teacher control run",
}


@pytest.fixture
def digests(monkeypatch):
    """``digests(cfg, content="print")`` → digest of each."""
    monkeypatch.setattr(identity, "trace", lambda names: Traced())  # tested in test_identity.py

    def make(cfg, content="print"):
        splits = {"train": SimpleNamespace(keys=torch.arange(3))}
        data = SimpleNamespace(fingerprint=lambda: content, splits=splits, augment=None, seen_through=("mean", "std"))
        student = factory.stage_config(cfg, "student")
        node = OmegaConf.create({"source": student.sources.teacher, "dtype": "float32", "top": None, "views": None})
        found = {name: recipe(factory.stage_config(cfg, name), name, data) for name in ("teacher", "control")}
        found["signals"] = recipe_of_signals(student, node, ["logits"], data)
        return {name: recipe_digest(one) for name, one in found.items()} | {"run": _resolved(cfg)[1]}

    return make


@pytest.fixture
def cfg(compose, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "teacher.safetensors")
    return compose(f"sources.teacher.checkpoint={tmp_path}/teacher.safetensors")


def leaves(node, path=""):
    for key in node:
        name = f"{path}{key}"
        inner = node._get_node(key)
        if isinstance(inner, DictConfig) and len(inner or ()) and not OmegaConf.is_interpolation(node, key):
            yield from leaves(inner, f"{name}.")
        else:
            yield name


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, ListConfig):
        return [*value, 1.5]
    return f"{value}x" if isinstance(value, str) else 7 if value is None else {"a": 1}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.mark.long
def test_every_key_changes_what_it_makes_or_is_cosmetic(cfg, digests):
    before, wrong = digests(cfg), {}
    for key in leaves(cfg):
        expected = next((said for pattern, said in EXPECTED.items() if re.fullmatch(pattern, key)), None)
        assert expected is not None, f"{key}: say in EXPECTED what it changes"
        if key == "sources.teacher.checkpoint":  # by its content: below
            continue
        edited = cfg.copy()
        OmegaConf.set_struct(edited, False)
        value = {"first": {}} if key.endswith(".phases") else other(OmegaConf.select(cfg, key))
        OmegaConf.update(edited, key, value, merge=False)
        if (found := changed(before, digests(edited))) != set(expected.split()):
            wrong[key] = found
    assert not wrong


def test_the_content_of_data_and_of_a_teacher_s_file_counts(cfg, digests, tmp_path):
    before = digests(cfg)
    assert changed(before, digests(cfg, "another")) == {"teacher", "control", "signals"}
    save_file({"weight": torch.ones(1)}, tmp_path / "teacher.safetensors")
    assert changed(before, digests(cfg)) == {"signals"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=9", "control run"),  # the order of the data's examples has a seed of its own here
        ("stages.teacher.seed=9", "teacher run"),
        ("data.batch_size=9", "teacher control run"),
        ("+stages.teacher.data.batch_size=9", "teacher run"),
    ],
)
def test_a_seed_and_the_size_of_a_batch_count_by_themselves(compose, tmp_path, digests, change, expected):
    save_file({"weight": torch.zeros(1)}, tmp_path / "teacher.safetensors")
    given = (f"sources.teacher.checkpoint={tmp_path}/teacher.safetensors", "data.seed=3", "+stages.teacher.data.seed=3")
    assert changed(digests(compose(*given)), digests(compose(*given, change))) == set(expected.split())
