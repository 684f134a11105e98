import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.sources.recorded import Recorded

KEY = torch.tensor([7, 2, 5])
LOGITS = torch.arange(6.0).view(3, 2)


def test_each_example_gets_its_own_row():
    found = Recorded(KEY, LOGITS)({"key": torch.tensor([5, 7, 7])})
    assert torch.equal(found["logits"], LOGITS[[2, 0, 0]])


@pytest.mark.parametrize("key", [0, 3, 8, 1000])
def test_an_example_that_is_not_on_record(key):
    with pytest.raises(TutelageError, match=f"no logits on record for example {key}"):
        Recorded(KEY, LOGITS)({"key": torch.tensor([7, key])})


def test_it_has_nothing_but_logits():
    source = Recorded(KEY, LOGITS)
    source.attach({"logits"}, {"student": source})
    with pytest.raises(TutelageError, match=r"a record holds logits only; the objective also reads \['stage1'\]"):
        source.attach({"logits", "stage1"}, {"student": source})
    assert not source.state_dict()
