from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.sources.recorded import Recorded, RecordedFile

KEY = torch.tensor([7, 2, 5])
LOGITS = torch.arange(6.0).view(3, 2)


def test_each_example_gets_its_own_row():
    found = Recorded(KEY, LOGITS)({"key": torch.tensor([5, 7, 7])})
    assert torch.equal(found["logits"], LOGITS[[2, 0, 0]])


@pytest.mark.parametrize("key", [0, 3, 8, 1000, 2**62])
def test_an_example_that_is_not_on_record(key):
    with pytest.raises(TutelageError, match=f"no logits for example {key}; it has 3 examples, keys 2 to 7"):
        Recorded(KEY, LOGITS)({"key": torch.tensor([7, key])})


def test_it_has_nothing_but_logits():
    source = Recorded(KEY, LOGITS)
    source.attach({"logits"}, {"student": source})
    with pytest.raises(TutelageError, match=r"outputs have logits only; the objective also reads \['stage1'\]"):
        source.attach({"logits", "stage1"}, {"student": source})
    assert not source.state_dict()


def test_a_key_as_large_as_can_be_costs_no_more():
    key = torch.tensor([2**62, 1])
    assert torch.equal(Recorded(key, LOGITS[:2])({"key": key})["logits"], LOGITS[:2])


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "teacher.npz", key=KEY, logits=LOGITS, probabilities=LOGITS.softmax(1))
    return str(tmp_path / "teacher.npz")


def test_a_file_teaches_as_the_tensors_in_it(path):
    batch = {"key": torch.tensor([5, 7, 7])}
    assert torch.equal(RecordedFile(path, "logits", 2)(batch)["logits"], LOGITS[[2, 0, 0]])
    found = RecordedFile(path, "probabilities", 2)(batch)["logits"]
    torch.testing.assert_close(found, LOGITS[[2, 0, 0]].log_softmax(1))


def test_a_file_s_mistakes_name_it(path):
    with pytest.raises(
        TutelageError, match=r"teacher\.npz: expected logits \[3, 9\] \(examples, classes\), .*\[3, 2\]"
    ):
        RecordedFile(path, "logits", 9)
    with pytest.raises(TutelageError, match="kind must be 'logits' or 'probabilities'; found 'logit'"):
        RecordedFile(path, "logit", 2)
    with pytest.raises(TutelageError, match=r"teacher\.npz: no logits for example 4"):
        RecordedFile(path, "logits", 2)({"key": torch.tensor([4])})


def test_logits_that_look_like_probabilities_are_refused_unless_meant(tmp_path):
    np.savez(tmp_path / "teacher.npz", key=KEY, logits=LOGITS.softmax(1))
    with pytest.raises(TutelageError, match="probabilities"):
        RecordedFile(str(tmp_path / "teacher.npz"), "logits", 2)
    RecordedFile(str(tmp_path / "teacher.npz"), "logits", 2, allow_normalised=True)


def test_a_record_is_graded_on_10_000_labelled_examples_of_each_split():
    def part(n):
        labels = torch.arange(n) % 3 - 1  # a third has none
        return SimpleNamespace(keys=torch.arange(n), labels=labels)

    record = Recorded(torch.arange(16_000), torch.randn(16_000, 2))
    found = record.graded(SimpleNamespace(splits={"train": part(16_000), "val": part(30)}))
    assert {split: len(labels) for split, (_, labels) in found.items()} == {"training": 10_000, "validation": 20}
    logits, labels = found["validation"]
    assert torch.equal(labels, torch.arange(20) % 2)
    assert torch.equal(logits, record.logits[[i for i in range(30) if i % 3]])


def test_augmented_images_are_refused_unless_meant(path):
    with pytest.raises(TutelageError, match=r"teacher\.npz has outputs for unaugmented images, but data\.augment"):
        RecordedFile(path, "logits", 2, augment=[object()])
    RecordedFile(path, "logits", 2, augment=None)
