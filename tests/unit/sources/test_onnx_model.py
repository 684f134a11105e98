import sys

import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.sources.onnx_model import OnnxModel

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
onnx = pytest.importorskip("onnx", reason="writes the models of these tests")

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
IMAGES = np.random.default_rng(0).normal(size=(5, 1, 2, 2)).astype(np.float32)


def write(path, batch="batch", kind=onnx.TensorProto.FLOAT, weight=WEIGHT):
    """flatten(x) @ weight as ``logits``, and the flat images as ``flat``."""
    h = onnx.helper
    nodes = [h.make_node("Flatten", ["x"], ["flat"]), h.make_node("MatMul", ["flat", "w"], ["logits"])]
    graph = h.make_graph(
        nodes, "g", [h.make_tensor_value_info("x", kind, [batch, 1, 2, 2])],
        [h.make_tensor_value_info(name, kind, None) for name in ("logits", "flat")],
        [onnx.numpy_helper.from_array(weight.astype(h.tensor_dtype_to_np_dtype(kind)), "w")],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("size", ["batch", 1, 2, 5])
def test_it_answers_as_the_formula_whatever_the_size_of_its_batch(tmp_path, size):
    found = OnnxModel(write(tmp_path / "m.onnx", size))(IMAGES)
    np.testing.assert_allclose(found, IMAGES.reshape(5, 4) @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_any_output_can_answer(tmp_path):
    path = write(tmp_path / "m.onnx")
    np.testing.assert_array_equal(OnnxModel(path, "flat")(IMAGES), IMAGES.reshape(5, 4))
    with pytest.raises(TutelageError, match=r"m\.onnx has no output 'logit'; did you mean 'logits'"):
        OnnxModel(path, "logit")


def test_another_file_is_another_version(tmp_path):
    path = tmp_path / "m.onnx"
    first = OnnxModel(write(path)).version
    assert OnnxModel(write(path)).version == first
    assert OnnxModel(write(path, weight=WEIGHT + 1)).version != first


def test_it_has_the_threads_of_torch(tmp_path):
    path, before = write(tmp_path / "m.onnx"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert OnnxModel(path)._session.get_session_options().intra_op_num_threads == 1
    finally:
        torch.set_num_threads(before)


def test_images_that_it_cannot_take(tmp_path):
    with pytest.raises(TutelageError, match=r"m\.onnx cannot take images \[5, 3, 2, 2\]: .*Got invalid dimensions"):
        OnnxModel(write(tmp_path / "m.onnx"))(np.zeros((5, 3, 2, 2), np.float32))


def test_files_that_are_none(tmp_path):
    with pytest.raises(TutelageError, match=r"/none\.onnx: no such ONNX file"):
        OnnxModel(str(tmp_path / "none.onnx"))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(TutelageError, match=r"bad\.onnx: onnxruntime cannot load it"):
        OnnxModel(str(bad))
    with pytest.raises(TutelageError, match=r"expected one input, float32; found \[\('x', 'tensor\(double\)'\)\]"):
        OnnxModel(write(tmp_path / "m.onnx", kind=onnx.TensorProto.DOUBLE))


def test_without_onnxruntime_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TutelageError, match=r"pip install 'tutelage\[onnx\]'"):
        OnnxModel("m.onnx")
