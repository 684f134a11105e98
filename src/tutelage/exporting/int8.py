"""ONNX files in 8 bits: quantised after training, with ranges from training examples, or as they were trained."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tutelage.errors import TutelageError, first_line
from tutelage.exporting.onnx import Onnx, describe, write_plain
from tutelage.exporting.quantised import fixed, integer_bits, store_integers
from tutelage.exporting.subject import Subject
from tutelage.models.quantised.network import Quantised
from tutelage.types import Batch

_HUGE = 1e30  # what networks add to a score that must not count, −∞ or the least float
_FINITE = ("Softmax", "LogSoftmax", "ReduceMax", "Max", "MaxPool", "GlobalMaxPool")  # of a row with such numbers


class Int8(Onnx):
    """An ONNX file whose products are of 8-bit integers: weights by channel, activations by tensor.

    Between nodes QuantizeLinear and DequantizeLinear, which any runtime of ONNX knows. The range of an activation is
    the least and the greatest value on the calibration examples. Weights use 7 of their 8 bits: processors without
    VNNI add pairs of products in 16 bits, where full ones overflow without a word. Masks of attention stay floats.

    A student that was trained with integers (``quantise=int8``, ``int4``) keeps those, and its own ranges: nothing is
    calibrated, and the file computes what the student computes. Its weights use all of their bits.
    """

    name = "int8"
    file = "model.int8.onnx"

    def write(self, subject: Subject, folder: Path, calibration: Callable[[], list[Batch]]) -> None:
        """Writes ``model.int8.onnx``.

        Raises:
            TutelageError: the network has an operator that ONNX lacks, or can't be quantised.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        target = folder / self.file
        if isinstance(subject.net, Quantised):
            self._write_trained(subject, subject.net, target)
            return
        with TemporaryDirectory(dir=folder, prefix=".int8.") as work:
            plain, ready = Path(work) / "plain.onnx", Path(work) / "ready.onnx"
            write_plain(subject, plain, self.name)
            try:
                quant_pre_process(plain, ready, skip_symbolic_shape=True)
                with warnings.catch_warnings():  # of the range of masks, which it computes and does not use
                    warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
                    quantize_static(
                        ready, target, _Reader(subject, calibration()), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, reduce_range=True,
                        nodes_to_exclude=_masking(ready),
                    )  # fmt: skip
            except Exception as error:  # whatever onnxruntime raises
                target.unlink(missing_ok=True)
                raise TutelageError(
                    f"format=int8: {type(subject.net).__name__} can't be quantised: {first_line(error)}"
                ) from error
        describe(target, subject.about | {"bits": 8})

    def _write_trained(self, subject: Subject, net: Quantised, target: Path) -> None:
        write_plain(replace(subject, net=fixed(net)), target, self.name)
        store_integers(target, bits := integer_bits(net))
        describe(target, subject.about | {"bits": bits})


def _masking(path: Path) -> list[str]:
    """Returns the nodes that read −∞ or its like, up to the one that makes a finite share or maximum of it.

    256 levels from there to a score leave one for all scores.
    """
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(path).graph
    constants = {one.name: one for one in graph.initializer}
    constants |= {
        node.output[0]: one.t
        for node in graph.node
        if node.op_type == "Constant"
        for one in node.attribute
        if one.HasField("t")
    }
    huge = {name for name, one in constants.items() if (abs(to_array(one).astype(float)) > _HUGE).any()}
    found = []
    for node in graph.node:  # in the order in which they are computed
        if huge & {*node.input}:
            found.append(node.name)
            huge |= set() if node.op_type in _FINITE else {*node.output}
    return found


class _Reader:
    """Gives onnxruntime the calibration examples; it asks for no base class."""

    def __init__(self, subject: Subject, batches: list[Batch]):
        self.subject, self.batches = subject, iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        if batch is None:
            return None
        arguments = self.subject.arguments(batch)
        return {name: x.numpy() for name, x in zip(self.subject.example, arguments, strict=True)}
