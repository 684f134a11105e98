"""Every yaml, found by glob, composes in its place, and every ``_target_`` in it takes its arguments."""

import importlib.util
import inspect
import shutil
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from tutelage.config.paths import conf_dir
from tutelage.config.source_nodes import options
from tutelage.config.validate import check, targets
from tutelage.training.parameter_groups import OPTIONS

CONF = Path(conf_dir())
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/[!_]*.yaml")
    if path.parent.name not in ("hydra", "experiment")
)
FOUND = [
    "data.num_classes=2",
    "data.num_outputs=2",
    "data.input_shape=[8]",
    "data.vocab_size=9",
    "data.tokenizer_digest=none",
]
OWN = {
    "dataset": ["data.train={_target_: own_data.Pictures}"],
    "streamed": [
        "data.train={_target_: own_data.Stream}",
        "data.val={_target_: own_data.Pictures, part: val}",
        "data.test={_target_: own_data.Pictures, part: test}",
        "data.length=300",
        "data.num_classes=10",
    ],
    "datamodule": ["data.datamodule={_target_: own_data.Module}"],
    "text": ["data.train=nowhere.tsv", *FOUND],
    "movie_reviews": FOUND,
    "movie_reviews_500": FOUND,
    "corpus": ["data.root=nowhere", *FOUND],
    "glue": FOUND,
    "glue_stsb": FOUND,
    "tagged_words": ["data.train=nowhere.conll", *FOUND],
    "sentences": ["data.train=nowhere.txt", *FOUND],
    "graph": ["data.path=nowhere", *FOUND[:3]],
    "hf": ["data.path=nowhere", "data.num_classes=2", "data.input_shape=[1,8,8]"],
    "strokes_cnn": ["data=omniglot"],
}  # what stands in them is looked at, too
OWN["python_docs_lm"] = OWN["corpus"]
IMAGENET = ("imagenet/data", "imagenet/resnet50_beit", "imagenet/lite0_lite2", "patient_teacher")
OWN |= {name: ["data.num_classes=1000"] for name in IMAGENET}
VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))
STAGES = ("teacher", "control", "student")

# Where a group's choice goes; a group that is not listed goes where its name says.
PLACES = {
    "model": ("model@teacher", "model@student"),
    "optimizer": ("optimizer", *(f"optimizer@stages.{stage}.optimizer" for stage in STAGES)),
    "scheduler": ("scheduler", *(f"scheduler@stages.{stage}.scheduler" for stage in STAGES)),
}
GIVEN_IN_CODE = {f"lightning.pytorch.loggers.{name}": {"save_dir"} for name in ("TensorBoardLogger", "CSVLogger")}


def examine(cfg: DictConfig) -> int:
    """Raises where a target is not there or does not take its arguments; returns how many it has seen."""
    for key in OmegaConf.missing_keys(cfg.data):
        OmegaConf.update(cfg, key, "nowhere" if key.endswith("root") else 10)  # what only the user can know
    if "student" in cfg:
        check(cfg)
    found = list(targets(cfg))
    for path, node in found:
        target = get_object(node._target_)
        given = {str(key) for key in node if not str(key).startswith("_")} - options(target)
        given |= GIVEN_IN_CODE.get(node._target_, set())
        given -= set(OPTIONS) if path.endswith("optimizer") else set()
        signature = inspect.signature(target)
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        try:
            bind(**dict.fromkeys(given))
        except TypeError as error:
            raise TypeError(f"{path}: {node._target_}: {error}") from None
    return len(found)


def test_the_groups_of_the_issue_are_there():
    groups = {"model", "data", "loss", "sources", "optimizer", "scheduler", "trainer", "callbacks", "logger"}
    assert groups <= {group for group, _ in CHOICES}
    assert {"distill", "evaluate"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_root_config_composes(compose, verb):
    cfg = compose(config=verb)
    assert OmegaConf.to_yaml(cfg)
    for path, node in targets(cfg):
        assert get_object(node._target_), path


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=map("/".join, CHOICES))
def test_every_choice_composes_and_its_targets_take_their_arguments(compose, tmp_path, group, name):
    if (group, name) == ("launcher", "ray") and importlib.util.find_spec("ray") is None:
        pytest.skip("needs pip install 'tutelage[ray]'")
    overrides = [f"{place}={name}" for place in PLACES.get(group, (group,))]
    if (group, name) == ("data", "image_folder"):  # its classes are counted
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / label).mkdir(parents=True)
        overrides.append(f"data.root={tmp_path}/pictures")
    if group == "data" or name == "strokes_cnn":
        overrides += OWN.get(name, [])
    root, least = ("condense", 2) if group == "condense" else ("distill", 6)
    assert examine(compose(*overrides, config=root)) >= least


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("loss", "terms: {hard: {loss: {temprature: 1}}}", "temprat"),
        ("loss", "terms: {mine: {_target_: tutelage.objective.Term, inputs: {x: student.logits}}}", "'loss'"),
        ("model", "{_target_: tutelage.models.tapped.Taped, net: {_target_: torch.nn.Flatten}}", "Taped"),
        ("model", "{_target_: tutelage.models.tapped.Tapped, taps: {}}", "'net'"),
        ("optimizer", "{_target_: torch.optim.SGD, _partial_: true, lr: 0.1, momentom: 0.9}", "momentom"),
        ("scheduler", "scheduler: {_target_: torch.optim.lr_scheduler.StepLR, stepsize: 1}", "stepsize"),
        ("trainer", "{_target_: lightning.Trainer, max_epochs: 1, divices: 1}", "divices"),
        ("data", "{_target_: tutelage.data.digits.Digits, num_classes: 10, input_shape: [1, 8, 8], bach: 3}", "bach"),
    ],
)  # fmt: skip
def test_a_planted_mistake_is_found(compose, tmp_path, group, content, said):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / group / "planted.yaml").write_text(content)
    overrides = [f"{place}=planted" for place in PLACES.get(group, (group,))]
    with pytest.raises((ValueError, TypeError), match=said):
        examine(compose(*overrides, folder=str(conf)))


EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix("")) for path in CONF.rglob("experiment/**/*.yaml")
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(compose, name):
    assert examine(compose(f"experiment={name}", *OWN.get(name, []))) > 5


def test_the_published_table_is_eighteen_experiments():
    assert len([name for name in EXPERIMENTS if name.count("/") == 2 and "/short/" not in name]) == 18


def test_no_loss_repeats_what_all_share():
    shared = OmegaConf.load(CONF / "loss" / "_base.yaml")
    for path in CONF.glob("loss/[!_]*.yaml"):
        own = OmegaConf.load(path)
        assert own.get("terms", {}).get("hard") != shared.terms.hard, path.name
        assert "_base" not in own.get("defaults", []) or "alpha" not in own, path.name


def test_losses_with_a_common_base_go_together_in_any_order(compose):
    for first, second in (("fitnet", "at"), ("at", "fitnet")):
        loss = compose(f"loss=[{first},{second}]").loss
        assert set(loss.terms) == {"hard", "hint", "at"}
        assert loss.alpha == 0.5
