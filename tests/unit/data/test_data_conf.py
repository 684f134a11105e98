"""Every choice of data in conf/, as the command line would make it."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tutelage.config.factory import stage_config
from tutelage.data.augment import Augment
from tutelage.data.base import ImageData
from tutelage.data.unlabelled import Folder

CONF = Path(__file__).parents[3] / "conf"
OWN = (  # of other labels or shapes
    "dataset", "streamed", "datamodule", "hf", "diabetes", "mnist_multilabel", "mnist_segmentation", "text",
    "movie_reviews", "corpus", "sentences",
    "tagged_words", "glue", "glue_stsb", "graph", "cora", "citeseer", "omniglot", "spoken_digits",
)  # fmt: skip
FILES = sorted(path for path in (CONF / "data").glob("[!_]*.yaml") if path.stem not in OWN)
SHARED = (CONF / "data" / "_base.yaml").read_text()  # by all of them
NEEDED = {"image_folder": ["data.root=/nowhere", "data.num_classes=5"]}  # what is ??? there


def make(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("distill", [f"data={name}", "seed=7", "paths.data=/nowhere", *NEEDED.get(name, []), *overrides])
    return instantiate(cfg.data), cfg.data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_is_complete_and_instantiates(path):
    data, node = make(path.stem)
    assert isinstance(data, ImageData)
    assert {"num_classes", "input_shape", "batch_size", "eval_batch_size", "seed", "split_seed", "val_size"} <= set(
        node
    )
    assert {"drop_last", "num_workers", "augment", "mean", "std"} <= set(node)
    assert (data.batch_size, data.seed, data.split_seed, data.drop_last, data.augment) == (
        node.batch_size,
        7,
        0,
        True,
        None,
    )
    assert data.num_classes == node.num_classes
    assert list(data.input_shape) == list(node.input_shape)
    assert len(data.class_names) == data.num_classes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_augmentation_in_its_comment_works(path):
    [example] = re.findall(r"# (data\.augment=\[.*\])", path.read_text())
    data, _ = make(path.stem, example)
    assert isinstance(data.augment, Augment)
    assert data.augment.seed == 7
    assert len(data.augment.steps) == example.count("_target_")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_transfer_set_in_its_comments_is_the_students_alone(path):
    examples = re.findall(r"# (data\.(?:classes|unlabelled)=\[.*?\])", SHARED)
    assert len(examples) == 2
    overrides = ["data.labelled=1000", "data.repeat_labelled=2", *examples]
    data, _ = make(path.stem, *overrides)
    assert (data.transfer.labelled, data.transfer.repeat_labelled, data.transfer.classes) == (1000, 2, [0, 1])
    assert isinstance(data.transfer.unlabelled[0], Folder)
    assert make(path.stem)[0].transfer.is_whole
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("distill", [f"data={path.stem}", *NEEDED.get(path.stem, []), *overrides])
    assert instantiate(stage_config(cfg, "teacher").data).transfer.is_whole
    assert stage_config(cfg, "control").data.labelled == stage_config(cfg, "student").data.labelled == 1000


def test_digits_load_as_configured():
    data, _ = make("digits")
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 600, "val": 600, "test": 597}


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("[!_]*.yaml")), ids=lambda path: path.stem)
def test_no_data_repeats_a_line_that_all_share(path):
    shared = {line.partition(" #")[0] for line in SHARED.splitlines() if re.match("  [a-z]", line)}
    own = {line.partition(" #")[0] for line in path.read_text().splitlines()}
    explained = {"  views: null", "  unlabelled: null", "  seed: ${seed}"} if path.stem in OWN else set()
    assert shared & own <= explained | {"  teacher:"}  # with a comment of their own there
