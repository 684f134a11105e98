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


def test_augmented_images_are_refused_unless_meant(path):
    with pytest.raises(TutelageError, match=r"teacher\.npz has outputs for unaugmented images, but data\.augment"):
        RecordedFile(path, "logits", 2, augment=[object()])
    RecordedFile(path, "logits", 2, augment=None)
