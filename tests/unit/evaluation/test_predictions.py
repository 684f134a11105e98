import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions, predict


def batches(n=7, size=3):
    inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    labels, keys = torch.arange(n) % 5, torch.arange(n) * 10 + 3
    return [
        {"input": inputs[i : i + size], "label": labels[i : i + size], "key": keys[i : i + size]}
        for i in range(0, n, size)
    ]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))


def test_rows_are_the_networks_own_in_the_loaders_order():
    net = network().eval()
    found = predict(net, batches(), "cpu")
    expected = net(torch.cat([b["input"] for b in batches()]))
    torch.testing.assert_close(found.logits, expected, rtol=1e-6, atol=1e-6)
    assert found.label.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert found.key.tolist() == [3, 13, 23, 33, 43, 53, 63]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_answers_become_float32_and_int64(dtype):
    small = [{**b, "label": b["label"].to(torch.int16), "key": b["key"].int()} for b in batches()]
    found = predict(lambda x: x.to(dtype), [{**b, "label": b["label"] % 4} for b in small], "cpu")
    assert (found.logits.dtype, found.label.dtype, found.key.dtype) == (torch.float32, torch.int64, torch.int64)


def test_a_training_module_answers_in_eval_mode_and_each_submodule_gets_its_own_mode_back():
    net = network().train()
    net[1].eval()  # a frozen norm within a training network
    before = {name: b.clone() for name, b in net.named_buffers()}
    found = predict(net, batches(), "cpu")
    assert [m.training for m in net] == [True, False, True, True]
    assert net.training
    assert all(torch.equal(b, before[name]) for name, b in net.named_buffers())
    assert torch.equal(found.logits, predict(network().eval(), batches(), "cpu").logits)


def test_the_modes_come_back_when_the_network_fails():
    net = network().train()
    with pytest.raises(RuntimeError):
        predict(net, [{**batches()[0], "input": torch.zeros(3, 9)}], "cpu")
    assert all(m.training for m in net.modules())


def test_the_mode_behind_another_callable_is_left_alone():
    net, modes = network().train(), []

    def call(x):
        modes.append(net.training)
        return net(x)

    predict(call, batches(6), "cpu")
    assert modes == [True, True]


def test_no_gradient_but_no_inference_tensor_either():
    kept = []
    net = network()
    net[0].register_forward_hook(lambda _module, _input, output: kept.append(output))
    predict(net, batches(), "cpu")
    assert not any(x.requires_grad or x.is_inference() for x in kept)
    (kept[0] * torch.ones(1, requires_grad=True)).sum().backward()  # an inference tensor can't be saved for backward


@pytest.mark.parametrize("missing", ["input", "label", "key"])
def test_a_batch_that_lacks_something_is_named(missing):
    batch = {k: v for k, v in batches()[0].items() if k != missing}
    with pytest.raises(TutelageError, match=rf"lacks \['{missing}'\]"):
        predict(network(), [batch], "cpu")


def test_an_empty_loader_is_refused():
    with pytest.raises(TutelageError, match="no batch"):
        predict(network(), [], "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused_with_the_first_key(value):
    logits = torch.zeros(4, 3)
    logits[2, 1] = logits[3, 0] = value
    with pytest.raises(TutelageError, match=rf"key 70: .* found {value} for class 1; 2 of 4"):
        Predictions(logits, torch.zeros(4, dtype=torch.int64), torch.tensor([50, 60, 70, 80]))


@pytest.mark.parametrize("label", [-1, -100, 3])
def test_a_label_out_of_range_is_refused_with_the_first_key(label):
    with pytest.raises(TutelageError, match=rf"key 60: expected a label in \[0, 3\), found {label}; 2 of 4"):
        Predictions(torch.zeros(4, 3), torch.tensor([0, label, 2, label]), torch.tensor([50, 60, 70, 80]))


@pytest.mark.parametrize(
    ("logits", "label", "key"), [((4,), 4, 4), ((4, 3), 3, 4), ((4, 3), 4, 5), ((0, 3), 0, 0), ((4, 0), 4, 4)]
)
def test_shapes_that_do_not_fit_are_refused(logits, label, key):
    with pytest.raises(TutelageError, match="predictions are logits"):
        Predictions(torch.zeros(logits), torch.zeros(label, dtype=torch.int64), torch.arange(key))


def test_of_equal_logits_the_first_is_chosen():
    p = Predictions(torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]), torch.tensor([0, 1]), torch.arange(2))
    assert p.choice.tolist() == [0, 1]
