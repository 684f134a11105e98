"""What holds of a source that says nothing of itself."""

from tutelage.sources.base import Source
from tutelage.sources.black_box import BlackBoxTeacher
from tutelage.sources.specialists import Specialists


def test_a_source_has_signals_of_validation_examples_and_asks_nothing_of_the_host():
    source = Source()
    assert source.supports_validation
    assert not source.asks_host
    assert source.network() is None
    assert source.trained_networks() == {}


def test_sources_whose_answer_takes_the_host_say_so():
    assert BlackBoxTeacher.asks_host
    assert Specialists.asks_host
