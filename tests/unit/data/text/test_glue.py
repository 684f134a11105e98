"""data=glue: every task's published layout, GLUE's metrics, and a task that is none."""

import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from texts import glue

from tutelage.data.text.glue import LAYOUTS, Glue
from tutelage.errors import TutelageError
from tutelage.tasks.metrics.matthews import MatthewsCorrelation
from tutelage.tasks.metrics.one_class import F1OfClass

pytest.importorskip("tokenizers")


@pytest.mark.parametrize("task", LAYOUTS)
def test_every_task_reads_its_published_layout(tmp_path, task):
    glue(tmp_path)
    data = Glue(root=tmp_path, task=task, batch_size=8, seed=0, val_size=8)
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 32, "val": 8, "test": 12}
    batch = data.splits["train"][0, torch.arange(4)]
    assert ("segment" in batch) == (task not in ("cola", "sst2"))
    if task == "stsb":
        assert (data.num_classes, data.num_outputs, batch["label"].dtype) == (None, 1, torch.float32)
    else:
        assert data.num_classes == (3 if "mnli" in task else 2)
        assert data.class_names == list(LAYOUTS[task].classes)
    key = int(batch["key"][0])
    assert data.shown("train", [key])[0].startswith(f"first {key} ")


def test_a_task_that_is_none_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(TutelageError, match=r"GLUE has no task 'sst-2'; did you mean 'sst2'"):
        Glue(root=tmp_path, task="sst-2", batch_size=8, seed=0)
    with pytest.raises(TutelageError, match=r"there is no file or folder .*SST-2/train\.tsv"):
        Glue(root=tmp_path, task="sst2", batch_size=8, seed=0)


def test_f1_is_that_of_class_1():
    chance = torch.Generator().manual_seed(0)
    probabilities, labels = torch.rand(50, 2, generator=chance), torch.randint(0, 2, (50,), generator=chance)
    metric = F1OfClass(1)
    for part in range(0, 50, 20):
        metric.update(probabilities[part : part + 20], labels[part : part + 20])
    assert float(metric.compute()) == pytest.approx(f1_score(labels, probabilities.argmax(1)))


@pytest.mark.parametrize(
    ("said", "true", "classes"),
    [([1] * 60, [0, 1, 1] * 20, 2), ([0, 1, 1] * 20, [1] * 60, 2),
     ([0, 1, 1, 0, 1], [0, 1, 0, 0, 1], 2), ([0, 2, 1, 0, 2, 2], [0, 1, 1, 2, 2, 0], 3)],
)  # fmt: skip
def test_the_correlation_of_matthews_is_that_of_scikit_learn_and_0_where_it_is_0_by_0(said, true, classes):
    metric = MatthewsCorrelation(num_classes=classes)
    probabilities, labels = torch.eye(classes)[said], torch.tensor(true)
    for part in range(0, len(said), 4):
        metric.update(probabilities[part : part + 4], labels[part : part + 4])
    assert float(metric.compute()) == pytest.approx(matthews_corrcoef(true, said), abs=1e-6)


def test_lines_of_qqp_with_too_few_columns_are_left_out_and_counted(tmp_path, caplog):
    glue(tmp_path)
    for task in ("QQP", "MRPC"):
        with open(tmp_path / task / "train.tsv", "a") as file:
            file.write("7\t8\n")
    assert len(Glue(root=tmp_path, task="qqp", batch_size=8, seed=0, val_size=8).splits["train"]) == 32
    assert "QQP/train.tsv: 1 lines with fewer than 6 columns are left out" in caplog.text
    with pytest.raises(TutelageError, match=r"MRPC/train\.tsv, line 42: 2 columns; expected 5"):
        Glue(root=tmp_path, task="mrpc", batch_size=8, seed=0)


@pytest.mark.parametrize(("task", "numbers"), [("stsb", False), ("mrpc", True)])
def test_a_task_with_labels_of_the_other_kind_names_its_choice(tmp_path, task, numbers):
    with pytest.raises(TutelageError, match=rf"data\.task={task} is read by data=glue{'' if numbers else '_stsb'}, "):
        Glue(root=glue(tmp_path), task=task, numbers=numbers, batch_size=8, seed=0)


def test_choices_of_glue_compose_with_their_metrics(compose, tmp_path):
    glue(tmp_path)
    cfg = compose("data=glue", f"data.root={tmp_path}", "data.task=cola", "task.headline=mcc")
    assert cfg.task.metrics.mcc.num_classes == 2
    cfg = compose("data=glue_stsb", f"data.root={tmp_path}")
    assert (cfg.data.task, cfg.task._target_) == ("stsb", "tutelage.tasks.regression.Regression")
    assert cfg.data.num_classes is None
