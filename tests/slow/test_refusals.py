"""Faults 5, 14, 15, 16, 25 and 26: what is refused, in which words, and that nothing wrong is left behind."""

import gzip
import json
import struct

import pytest
import torch
from command import PAIR, SPLITS, TINY
from PIL import Image
from runs import status

from tutelage.checkpoints.weights import about
from tutelage.data.digits import Digits
from tutelage.models.mlp import MLP

SOON = ("data._target_=bad_data.NaNDigits", "+data.check_finite=false")


def training_key() -> int:
    """An example that is in the training split."""
    data = Digits(num_classes=10, input_shape=[1, 8, 8], batch_size=64, val_size=300, seed=0, mean=[0.3], std=[0.4])
    return int(data.splits["train"].keys[17])


# -- 5: NaN -----------------------------------------------------------------------------------------------------------


def test_a_sample_that_is_nan_stops_the_run_and_is_named(main, tmp_path):
    key = training_key()
    answer = main("distill", *TINY, *SOON, f"+data.at={key}", "hydra.run.dir=run")
    assert answer.code == 1
    assert "the loss is nan at epoch 0, batch " in answer.message
    assert f"inputs that are not finite: examples [{key}]" in answer.message
    said = status(tmp_path / "run")
    assert said["state"] == "FAILED"
    assert said["why"] in answer.message
    assert not list(tmp_path.rglob("best.safetensors"))


def test_it_is_refused_before_training_unless_that_is_switched_off(main, tmp_path):
    answer = main("distill", *TINY, SOON[0], "+data.at=17", "hydra.run.dir=run")
    assert answer.code == 1
    assert "NaNDigits train: the image at index 17 is not finite (1 are not)" in answer.message


@pytest.mark.parametrize("harm", ["PoisonInputAt", "PoisonWeightsAt"])
@pytest.mark.parametrize("step", [20, 36])
def test_a_nan_later_keeps_the_best_weights_from_before_it(main, tmp_path, harm, step):
    """Step 36 is the last of the second epoch: poisoned there, validation is the first to see it."""
    if harm == "PoisonInputAt":
        step -= 1  # it strikes before the step, the other one after it
    strike = f"+callbacks.harm={{_target_: faults.{harm}, stage: student, step: {step}, marker: {tmp_path}/struck}}"
    answer = main("distill", "trainer.max_epochs=4", *PAIR, *SPLITS, strike, "hydra.run.dir=run")
    assert answer.code == 1, answer.out
    assert "nan" in answer.message
    assert status(tmp_path / "run")["state"] == "FAILED"
    assert about(tmp_path / "run" / "checkpoints" / "best.safetensors")["epoch"] == 0
    assert not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")  # torchmetrics' news, an error in tests
def test_weights_that_are_nan_after_the_first_epoch_are_never_best(main, tmp_path):
    """Their accuracy is a finite number (the answer is always class 0), and the first there is."""
    strike = (
        f"+callbacks.harm={{_target_: faults.PoisonWeightsAt, stage: student, step: 18, marker: {tmp_path}/struck}}"
    )
    answer = main("distill", *TINY, strike, "hydra.run.dir=run")
    assert answer.code == 1, answer.out
    assert "nan" in answer.message
    assert not (tmp_path / "run" / "checkpoints" / "best.safetensors").exists()


# -- 14 and 15: shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 5, 100])
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_class_counts_that_differ_are_refused_before_any_training(main, tmp_path, who, classes):
    answer = main("distill", *TINY, f"{who}.net.num_classes={classes}", "hydra.run.dir=run")
    assert answer.code == 1
    assert f"the {who} returns logits" in answer.message
    assert f"[8, {classes}]" in answer.message
    assert "need [8, 10]: its `classes` can list, for each class of the data" in answer.message
    assert "epoch 1" not in answer.out
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("classes", [1, 5, 100])
def test_a_given_teacher_of_other_classes_is_refused(main, tmp_path, classes):
    net = MLP([1, 8, 8], [16], classes)
    torch.save(net.state_dict(), tmp_path / "teacher.pt")
    answer = main("distill", *TINY, "sources.teacher.checkpoint=teacher.pt", f"teacher.net.num_classes={classes}")
    assert answer.code == 1
    assert "the teacher returns logits" in answer.message
    assert f"[8, {classes}]" in answer.message
    assert "[8, 10]" in answer.message
    assert "epoch 1" not in answer.out


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_logits_of_one_row_that_would_broadcast_are_refused(main, tmp_path, who):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "row.yaml").write_text("_target_: odd_nets.OneRow\n")
    answer = main("distill", "--config-dir", "mine", "trainer.max_epochs=2", f"model@{who}=row", "hydra.run.dir=run")
    assert answer.code == 1
    assert f"the {who} returns logits" in answer.message
    assert "[1, 10]" in answer.message
    assert "[8, 10]" in answer.message
    assert "epoch 1" not in answer.out


# -- 16: labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "label"), [("train", 10), ("train", -1), ("test", 255)])
def test_a_label_out_of_range_is_named_with_dataset_and_index(main, tmp_path, part, label):
    bad = ["data._target_=bad_data.MislabelledDigits", "+data.at=33", f"+data.label={label}", f"+data.part={part}"]
    answer = main("distill", *TINY, *bad, "hydra.run.dir=run")
    assert answer.code == 1
    assert f"MislabelledDigits {part}: the example at index 33: its label is {label}; expected 0 to 9" in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


# -- 25: splits -------------------------------------------------------------------------------------------------------


def splits(override):
    """:data:`SPLITS` with one of them replaced."""
    return [override if override.startswith(kept.partition("=")[0]) else kept for kept in SPLITS]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.val_size=0", "data.val_size=0 of 1500 examples"),
        ("data.val_size=1500", "data.val_size=1500 of 1500 examples"),
        ("data.val_size=1.5", "data.val_size=1.5 of 1500 examples"),
        ("data.test_size=0", "data.test_size=0 of 1797 examples"),
        ("data.batch_size=1201", "1200 training examples don't fill one batch of 1201 and drop_last=true leaves none"),
    ],
)
def test_an_empty_or_too_small_split_is_refused(main, tmp_path, override, said):
    answer = main("distill", "trainer.max_epochs=2", *PAIR, *splits(override), "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_batch_as_large_as_the_split_is_trained_on(main, tmp_path):
    sizes = splits("data.batch_size=1200")
    assert main("distill", "trainer.max_epochs=2", *PAIR, *sizes, "hydra.run.dir=run").code == 0
    assert status(tmp_path / "run")["state"] == "COMPLETE"


# -- 26: files --------------------------------------------------------------------------------------------------------


def write_idx(root, images=80, packed=False):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    chance = torch.Generator().manual_seed(0)
    for part, count in (("train", images), ("t10k", 20)):
        pixels = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=chance)
        labels = torch.arange(count, dtype=torch.uint8) % 10
        for name, magic, tensor in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">{1 + tensor.dim()}i", magic, *tensor.shape) + tensor.numpy().tobytes()
            (raw / f"{part}-{name}-ubyte{'.gz' if packed else ''}").write_bytes(
                gzip.compress(content) if packed else content
            )
    return raw


IDX = (
    "data=mnist",
    "data.download=false",
    "data.root=files",
    "data.val_size=16",
    "data.batch_size=32",
    *PAIR,
    "trainer.max_epochs=2",
)


@pytest.mark.parametrize("packed", [False, True])
def test_small_idx_files_are_trained_on(main, tmp_path, packed):
    write_idx(tmp_path / "files", packed=packed)
    answer = main("distill", *IDX, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["student"]["last"]["test"]["count"] == 20


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("left", [0, 3, 7, -1])
def test_a_truncated_idx_file_is_named_with_both_sizes(main, tmp_path, name, left):
    path = write_idx(tmp_path / "files") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    answer = main("distill", *IDX, "hydra.run.dir=run")
    assert answer.code == 1
    assert name in answer.message
    assert str(len(whole[:left])) in answer.message
    assert "expected" in answer.message
    assert "Traceback" not in answer.message


def test_missing_files_are_listed_with_where_they_were_looked_for(main, tmp_path):
    answer = main("distill", *IDX, "hydra.run.dir=run")
    assert answer.code == 1
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"files/MNIST/raw/{part}-ubyte" in answer.message
    assert "data.download=true" in answer.message
    assert status(tmp_path / "run")["state"] == "FAILED"


def test_a_corrupt_image_of_a_folder_is_named(main, tmp_path):
    chance = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(40):
            pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=chance)
            Image.fromarray(pixels.numpy()).save(tmp_path / "pictures" / name / f"{i}.png")
    bad = tmp_path / "pictures" / "dog" / "7.png"
    bad.write_bytes(bad.read_bytes()[:60])
    folder = ["data=image_folder", "data.root=pictures", "data.num_classes=2", "data.input_shape=[3,8,8]"]
    folder += ["data.batch_size=16", "data.num_workers=0", *PAIR, "trainer.max_epochs=2"]
    answer = main("distill", *folder, "hydra.run.dir=run")
    assert answer.code == 1
    assert "dog/7.png" in answer.message
    assert status(tmp_path / "run")["state"] == "FAILED"


def test_labels_of_another_task_are_refused_before_training(main, tmp_path):
    answer = main("distill", *PAIR, "data=dataset", "data.train={_target_: own_data.brightness}", "hydra.run.dir=run")
    assert answer.code == 1
    assert "task=classification needs labels that are one integer an example" in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))
