"""Warnings of libraries: each once, however often a network is built."""

import logging
import warnings

import pytest

from tutelage.runtime import messages


@pytest.fixture
def shown(monkeypatch):
    """The warnings that reach what Python shows them by, which a test runner has replaced."""
    found = []
    monkeypatch.setattr(messages, "_show", lambda message, *rest, **more: found.append(str(message)))
    monkeypatch.setattr(messages, "_seen", set())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        messages.quiet()
        yield found


def test_a_warning_that_is_repeated_is_shown_once(shown):
    for text in ("'pretrained' is deprecated", "'pretrained' is deprecated", "another"):
        warnings.warn(text, UserWarning, stacklevel=1)
    assert shown == ["'pretrained' is deprecated", "another"]


def test_a_library_that_repeats_itself_in_the_log_is_heard_once_and_we_are_always(monkeypatch):
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(f"{record.name}: {record.getMessage()}")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with warnings.catch_warnings():
        messages.quiet()
        messages.quiet()
    for name in ("timm.models", "tutelage.x"):
        for _ in range(2):
            logging.getLogger(name).warning("No pretrained weights exist for %s", "this model")
            logging.getLogger(name).warning("said by every stage", extra=messages.ONCE)
    said, once = "No pretrained weights exist for this model", "said by every stage"
    ours = [f"tutelage.x: {said}", f"tutelage.x: {once}", f"tutelage.x: {said}"]
    assert heard == [f"timm.models: {said}", f"timm.models: {once}", *ours]
