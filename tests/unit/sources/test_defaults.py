"""Defaults of sources: what Python users get who name nothing."""

import inspect

import pytest

from tutelage.sources import specialists
from tutelage.sources.black_box import BlackBoxTeacher
from tutelage.sources.cached import Cached
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.ensemble import Ensemble
from tutelage.sources.frozen import Frozen
from tutelage.sources.onnx_model import OnnxModel
from tutelage.sources.other_view import OtherView
from tutelage.sources.outputs import FLOOR
from tutelage.sources.recorded import Recorded, RecordedFile
from tutelage.sources.specialists import Specialists
from tutelage.sources.stale import Stale
from tutelage.sources.store import AT_ONCE, BYTES, ROWS

WHOLE = {"checkpoint": None, "key": None, "prefix": None, "rename": None, "strict": True, "channels_last": True}
ASKED = {"name": None, "batch_size": 64, "retries": 3, "wait": 1.0, "floor": FLOOR, "allow_normalised": False}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (BlackBoxTeacher, ASKED),
        (Cached, {"folder": None, "dtype": "float32", "top": None, "views": None}),
        (EMATeacher, {"decay": 0.999, "ramp": 2.0}),
        (Ensemble, {"combine": "probability", "weights": None}),
        (Frozen, WHOLE),
        (OnnxModel, {"output": None}),
        (OtherView, {"of": "teacher"}),
        (Recorded, {"name": "the record"}),
        (RecordedFile, {"floor": FLOOR, "augment": None, "allow_normalised": False}),
        (Specialists, {"specialists": (), "groups": None, "top": 1}),
        (Stale, {"every": 50, "of": ("student", "peers")}),
    ],
)
def test_a_default_changes_only_if_this_does(source, expected):
    parameters = inspect.signature(source).parameters.values()
    assert {one.name: one.default for one in parameters if one.default is not one.empty} == expected


def test_a_limit_changes_only_if_this_does():
    assert FLOOR == 1.2e-38  # above float32's least normal number
    assert (ROWS, BYTES, AT_ONCE) == (4096, 256 * 2**20, 8 * 2**30)
    assert (specialists.TOLERANCE, specialists._STEPS) == (1e-6, 1000)
