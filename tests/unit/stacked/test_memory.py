"""The number of students that fit into memory at once."""

import pytest

from tutelage.config import factory
from tutelage.stacked import memory


@pytest.fixture
def most(compose, monkeypatch):
    """``most(free, *overrides)`` → how many of a student fit into so many free bytes."""

    def count(free, *overrides):
        stage = factory.stage_config(compose("model@student=dense", "model@teacher=mlp", *overrides), "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        monkeypatch.setattr(memory, "_free", lambda: free)
        return memory.most_that_fit(module, data)

    return count


def test_twice_the_memory_holds_twice_as_many(most):
    few = most(1 << 28)
    assert few > 100
    assert 2 * few <= most(1 << 29) <= 2 * few + 1


@pytest.mark.parametrize("more", ["student.net.widths=[512]", "data.batch_size=256", "model@student=cnn"])
def test_larger_networks_and_batches_are_fewer(most, more):
    assert most(1 << 28, more) < most(1 << 28) / 2


def test_one_always_fits(most):
    assert most(1) == 1


def test_what_is_free_is_known_here():
    assert memory._free() > 1 << 20
