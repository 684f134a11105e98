"""Tutelage: knowledge distillation for research, on Hydra, Lightning and TensorBoard.

From Python::

    import tutelage as tt

    student = tt.load("outputs/mine/checkpoints/best.safetensors")  # a trained network, ready for inference
    loss = tt.losses.DKD(temperature=4.0)  # in a training loop of one's own
    module = tt.Distillation(student=net, teacher=frozen, objective=tt.Objective(...))  # under lightning.Trainer
    result = tt.distill("loss=dkd", "data=digits", seed=3)  # the whole protocol
    print(tt.plan("loss=dkd", "data=digits"))  # what that would train, reuse and write
    print(tt.budget("data=digits", parameters=20_000))  # students of that size, measured here
    files = tt.export("outputs/mine/checkpoints/best.safetensors", ["onnx", "int8"])  # for others to run, measured
    results = tt.compare(["loss=soft_target", "loss=dkd"], seeds=range(5))  # several, paired by seed

Names are imported when they are first used, so that ``import tutelage`` costs nothing and changes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage import losses as losses
    from tutelage.api import Comparison as Comparison
    from tutelage.api import Result as Result
    from tutelage.api import compare as compare
    from tutelage.api import distill as distill
    from tutelage.api import load as load
    from tutelage.api import plan as plan
    from tutelage.deployment import Exported as Exported
    from tutelage.deployment import budget as budget
    from tutelage.deployment import export as export
    from tutelage.deployment import predict as predict
    from tutelage.errors import TutelageError as TutelageError
    from tutelage.models.tapped import Tapped as Tapped
    from tutelage.objective import Objective as Objective
    from tutelage.objective import Term as Term
    from tutelage.pipeline.budget import Budget as Budget
    from tutelage.training.plain import Distillation as Distillation

__version__ = "0.1.0"

_HOMES = {
    "Budget": "tutelage.pipeline.budget",
    "Comparison": "tutelage.api",
    "Distillation": "tutelage.training.plain",
    "Exported": "tutelage.deployment",
    "Objective": "tutelage.objective",
    "Result": "tutelage.api",
    "Tapped": "tutelage.models.tapped",
    "Term": "tutelage.objective",
    "TutelageError": "tutelage.errors",
    "budget": "tutelage.deployment",
    "compare": "tutelage.api",
    "distill": "tutelage.api",
    "export": "tutelage.deployment",
    "load": "tutelage.api",
    "plan": "tutelage.api",
    "predict": "tutelage.deployment",
}
__all__ = [*_HOMES, "__version__", "losses"]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("tutelage.losses")
    if name not in _HOMES:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "losses"])
