import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.srrl import SRRL


def signals(maps: bool = True) -> dict[str, torch.Tensor]:
    size = (3, 3) if maps else ()
    shapes = {
        "student": (4, 3, *size),
        "teacher": (4, 6, *size),
        "classifier_weight": (5, 6),
        "teacher_logits": (4, 5),
        "classifier_bias": (5,),
    }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("maps", [True, False], ids=["maps", "vectors"])
def test_the_teacher_s_own_feature_and_logits_cost_nothing(maps: bool) -> None:
    given = signals(maps)
    teacher, weight, bias = given["teacher"], given["classifier_weight"], given["classifier_bias"]
    loss = SRRL()
    loss(**given | {"student": teacher})
    loss.regressor = nn.Identity()
    pooled = teacher.mean((2, 3)) if maps else teacher
    own = given | {"student": teacher, "teacher_logits": pooled @ weight.T + bias}
    torch.testing.assert_close(loss(**own), torch.tensor(0.0), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("feature", "logit"), [(1.0, 0.0), (0.0, 1.0), (0.5, 3.0)])
def test_the_parts_have_their_weights(feature: float, logit: float) -> None:
    given = signals()
    loss = SRRL(feature, logit)
    value = loss(**given)
    state = {k: v.double().numpy() for k, v in loss.state_dict().items()}
    assert not {"feature", "logit"} & state.keys()
    expected = oracle.srrl(state, **{k: v.double().numpy() for k, v in given.items()}, a=feature, b=logit)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_a_classifier_may_have_no_bias() -> None:
    given = signals()
    loss = SRRL()
    loss(**given)
    without = {k: v for k, v in given.items() if k != "classifier_bias"}
    torch.testing.assert_close(loss(**without), loss(**given | {"classifier_bias": torch.zeros(5)}))
    assert loss(**without) != loss(**given)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("classifier_weight", (5, 7)), ("teacher_logits", (4, 6)), ("teacher_logits", (1, 5)), ("classifier_bias", (1,))],
)
def test_a_classifier_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...]) -> None:
    found = ", ".join(map(str, shape))
    with pytest.raises(TutelageError, match=rf"teacher \[4, 6, 3, 3\].* {name} of shape .*; found \[{found}\]"):
        SRRL()(**signals() | {name: torch.randn(shape)})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["feature", "logit"])
def test_a_weight_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(TutelageError, match=f"SRRL's {name} must be finite and not negative; found {value}"):
        SRRL(**{name: value})
