"""ONNX files of integers answer as the quantised network that they are of, through onnxruntime."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.exporting.quantised import calibrated, fixed, store_integers
from tutelage.models.lenet import LeNet5
from tutelage.models.quantised.schemes import Bucketed, Integers
from tutelage.models.resnet import ResNet

SHAPE = [1, 16, 16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def nets():
    normalised = ResNet(1, 5, [1, 1, 1], (4, 8, 16), 4)
    for part in normalised.modules():
        if isinstance(part, nn.BatchNorm2d):  # signs of both kinds
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return {"lenet": LeNet5(SHAPE, 5, [2, 3, 8, 6]), "resnet": normalised}


def write(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, *SHAPE),), path, dynamo=False, opset_version=17, input_names=["input"],
            output_names=["logits"], dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip


def answers(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x.numpy()})[0]


@pytest.mark.parametrize(("name", "bits"), [("lenet", 8), ("resnet", 8), ("resnet", 4)])
def test_a_file_of_integers_answers_as_the_network(tmp_path, name, bits):
    net, path = Integers(bits).of(nets()[name]).train(), tmp_path / "net.onnx"
    for _ in range(5):
        net(torch.randn(16, *SHAPE))
    net.eval()
    x = torch.randn(40, *SHAPE)
    with torch.no_grad():
        expected = net(x)
        exported = fixed(net)
        assert torch.equal(exported(x), expected)
    write(exported, path)
    floats = path.stat().st_size
    np.testing.assert_allclose(answers(path, x), expected, rtol=0, atol=0.05)
    store_integers(path, bits)
    assert path.stat().st_size < floats
    found = answers(path, x)
    scale = float(expected.std())
    assert np.abs(found - expected.numpy()).max() < 0.2 * scale  # of a sum on the edge of two codes
    assert (found.argmax(1) == expected.numpy().argmax(1)).mean() >= 0.95
    model = onnx.load(path)
    kinds = {one.op_type for one in model.graph.node}
    assert "BatchNormalization" not in kinds
    stored = [one for one in model.graph.initializer if one.name.endswith(".codes")]
    wanted = onnx.TensorProto.INT4 if bits == 4 else onnx.TensorProto.UINT8
    assert len(stored) == len(net.weights)
    assert {one.data_type for one in stored} == {wanted}
    weight, rounder = net.student.classifier.weight.detach(), net.weights["classifier.weight"]
    codes = torch.round(weight / rounder.scale(weight)[:, None]).int().numpy()
    shift = 0 if bits == 4 else 128
    assert any(np.array_equal(onnx.numpy_helper.to_array(one).astype(int) - shift, codes) for one in stored)


def test_ranges_without_training_are_those_of_the_examples():
    net = nets()["lenet"].eval()
    batches = [{"input": torch.randn(8, *SHAPE)} for _ in range(3)]
    made = calibrated(net, batches)
    first = made.inputs["stage1.preact.0"]
    everything = torch.cat([batch["input"] for batch in batches])
    assert float(first.low) == float(everything.min())
    assert float(first.high) == float(everything.max())
    with torch.no_grad():
        torch.testing.assert_close(made(everything), net(everything), rtol=0.1, atol=0.05)
    assert calibrated(net, batches, 4).weights["classifier.weight"].bits == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda net: fixed(Integers().of(net)), r"the input of 'stage1.preact.0' has no range"),
        (lambda net: fixed(Integers(6, None).of(net)), r"quantised\.bits=6: ONNX has integers of 4 and 8 bits"),
        (lambda net: fixed(Integers(8, 4).of(net)), r"quantised\.activations=4: ONNX has inputs of 8 bits"),
        (lambda net: fixed(Bucketed().of(net)), "use format=onnx"),
        (lambda net: calibrated(net, []), "needs one or more batches of examples"),
    ],
)
def test_what_has_no_integers_has_a_sentence(make, said):
    with pytest.raises(TutelageError, match=said):
        make(nets()["lenet"])
