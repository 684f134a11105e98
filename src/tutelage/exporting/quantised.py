"""ONNX files of integers: of a quantised student, or of a float network with ranges from a few examples."""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.models.quantised.schemes import Integers
from tutelage.models.quantised.weights import PerChannel, per_channel
from tutelage.models.tapped import run
from tutelage.types import Batch

BITS = (4, 8)  # of weights that ONNX has integers for; inputs have 8
_OPSET_INT4 = 21


def calibrated(net: nn.Module, batches: Iterable[Batch], bits: int = 8) -> Quantised:
    """Quantises a trained network without training (PTQ).

    Args:
        net: the float network, which stays as it is.
        batches: whose least and greatest inputs of a layer, without averaging, are its range.
        bits: of the weights; inputs have 8.

    Returns:
        The network in eval mode.

    Raises:
        TutelageError: there is no batch, or nothing in it can be quantised.
    """
    made = Integers(bits).of(deepcopy(net)).eval()
    made.__dict__["_reads"] = net.__dict__.get("_reads")
    seen: dict[str, list[Tensor]] = {path: [] for path in made.inputs}
    handles = [made.student.get_submodule(path).register_forward_pre_hook(_notes(kept)) for path, kept in seen.items()]
    with torch.no_grad():
        for batch in batches:
            run(made.student, batch)
    for handle in handles:
        handle.remove()
    if not any(seen.values()):
        raise TutelageError("quantisation without training needs one or more batches of examples for its ranges")
    for path, span in made.inputs.items():
        ranges = torch.stack(seen[path])
        span.low.copy_(ranges[:, 0].min())
        span.high.copy_(ranges[:, 1].max())
    return made


def _notes(kept: list[Tensor]) -> Any:
    return lambda module, inputs: kept.append(torch.stack(torch.aminmax(inputs[0])))


def exportable(net: nn.Module) -> nn.Module:
    """Returns the network that programs are made of: of a quantised one its plain form, which computes the same.

    That is with constants in place of ranges, or, where no input is rounded, an ordinary network with rounded weights.
    """
    if not isinstance(net, Quantised):
        return net
    return fixed(net) if net.inputs else net.plain()


def integer_bits(net: Quantised) -> int:
    """Returns the bits of the weights of a network that :func:`fixed` takes."""
    return max(rounder.bits for rounder in net.weights.values() if isinstance(rounder, PerChannel))


def fixed(net: Quantised) -> nn.Module:
    """Returns a copy of a quantised student with its scales as constants, as torch's exporter on TorchScript takes it.

    Raises:
        TutelageError: its weights are not integers of a channel (buckets, points), or of bits that ONNX does not have.
    """
    made = deepcopy(net.student)
    for name, rounder in net.weights.items():
        if not isinstance(rounder, PerChannel):
            raise TutelageError("weights of buckets and points are no integers times a scale: use format=onnx")
        if rounder.bits not in BITS:
            raise TutelageError(f"quantised.bits={rounder.bits}: ONNX has integers of {BITS[0]} and {BITS[1]} bits")
        path, _, own = name.rpartition(".")
        layer = made.get_submodule(path)
        weight = layer.get_parameter(own)
        scale = rounder.scale(weight)
        with torch.no_grad():
            weight.copy_(per_channel(weight, scale, rounder.bits))
        parametrize.register_parametrization(layer, own, _FixedScale(scale))
    for path, span in net.inputs.items():
        if span.bits != 8:
            raise TutelageError(f"quantised.activations={span.bits}: ONNX has inputs of 8 bits")
        if not span.high > span.low:
            raise TutelageError(
                f"quantised: the input of {path!r} has no range: the network has seen no batch in training"
            )
        made.get_submodule(path).register_forward_pre_hook(_rounds(*span.grid()))
    return made.eval()


class _FixedScale(nn.Module):
    """Integers of 8 bits, whose codes are those of fewer bits where the weight is on their grid."""

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero, 0, -128, 127)


def _rounds(scale: Tensor, zero: Tensor) -> Any:
    return lambda module, inputs: (torch.fake_quantize_per_tensor_affine(inputs[0], scale, zero, 0, 255), *inputs[1:])


def store_integers(path: Path, bits: int) -> None:
    """Stores the weights of an ONNX file of :func:`fixed` as integers instead of floats that are rounded at each start.

    A batch normalisation behind a convolution goes into its scales and bias, ``s·γ/√(σ² + ε)``: the integers stay, but
    for their sign where γ is negative. So the products of integers are followed by the next rounding alone.

    Args:
        path: of the file, which is replaced.
        bits: of the weights: 8, or 4, which needs opset 21. What the file says of itself is dropped.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    del model.metadata_props[:]
    graph = _Graph(model.graph, numpy_helper)
    for node in [one for one in model.graph.node if one.op_type == "QuantizeLinear" and graph.constant(one.input[0])]:
        _store(graph, node, bits)
    graph.drop_unused()
    if bits == 4:
        model = onnx.version_converter.convert_version(model, _OPSET_INT4)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class _Graph:
    """A graph of ONNX in which constants are read and written by name.

    Args:
        graph: as onnx has it.
        helper: onnx's, which is imported late.
    """

    def __init__(self, graph: Any, helper: Any):
        self.graph, self.helper = graph, helper
        self.same = {one.output[0]: one.input[0] for one in graph.node if one.op_type == "Identity"}
        self.values = {one.name: one for one in graph.initializer}
        self.values |= {
            one.output[0]: one.attribute[0].t for one in graph.node if one.op_type == "Constant" and one.attribute
        }

    def constant(self, name: str) -> Any:
        """Returns the tensor of a constant, or None."""
        while name in self.same:
            name = self.same[name]
        return self.values.get(name)

    def array(self, name: str) -> Any:
        """Returns the values of a constant."""
        return self.helper.to_array(self.constant(name))

    def add(self, name: str, tensor: Any) -> str:
        """Adds a constant."""
        tensor.name = name
        self.graph.initializer.append(tensor)
        self.values[name] = tensor
        return name

    def readers(self, name: str) -> list[Any]:
        """Returns the nodes that read a value."""
        return [one for one in self.graph.node if name in one.input]

    def drop_unused(self) -> None:
        """Removes constants, and nodes of constants, that nothing reads."""
        wanted = {one.name for one in self.graph.output}
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
            else:
                self.graph.node.remove(node)
        for one in [one for one in self.graph.initializer if one.name not in wanted]:
            self.graph.initializer.remove(one)


def _store(graph: _Graph, node: Any, bits: int) -> None:
    """Makes integers of a rounded constant, and takes in a batch normalisation behind its only convolution."""
    from onnx import TensorProto, helper

    scale = graph.array(node.input[1])
    weight = graph.array(node.input[0])
    along = (-1, *[1] * (weight.ndim - 1))
    codes = np.clip(np.rint(weight / scale.reshape(along)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int8)
    [back] = graph.readers(node.output[0])
    readers = graph.readers(back.output[0])
    normalised = graph.readers(readers[0].output[0]) if len(readers) == 1 and readers[0].op_type == "Conv" else []
    if len(normalised) == 1 and normalised[0].op_type == "BatchNormalization":
        scale, codes = _take_in(graph, readers[0], normalised[0], scale, codes)
    name = f"{node.input[0]}.codes"
    if bits == 4:
        tensor, zeros = (
            helper.make_tensor(name, TensorProto.INT4, x.shape, _packed(x), raw=True)
            for x in (codes, np.zeros(len(scale), np.int8))
        )
    else:
        # Unsigned, as onnxruntime adds pairs of products with signed ones in 16 bits on processors without VNNI, where
        # they overflow.
        unsigned = (codes.astype(np.int16) + 128).astype(np.uint8)
        tensor, zeros = (graph.helper.from_array(x) for x in (unsigned, np.full(len(scale), 128, np.uint8)))
    back.input[0] = graph.add(name, tensor)
    back.input[1] = graph.add(f"{name}.scale", graph.helper.from_array(scale))
    back.input[2] = graph.add(f"{name}.zero", zeros)


def _packed(codes: Any) -> bytes:
    """Returns integers of 4 bits, two in a byte, the first one low."""
    flat = np.append(codes.flatten(), [0] * (codes.size % 2)).astype(np.int8) & 0xF
    found: bytes = (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()
    return found


def _take_in(graph: _Graph, conv: Any, norm: Any, scale: Any, codes: Any) -> tuple[Any, Any]:
    """Returns scales and codes with a batch normalisation, which is removed, in them; its shift is the bias."""
    gamma, beta, mean, variance = (graph.array(name).astype(np.float64) for name in norm.input[1:])
    epsilon = next((one.f for one in norm.attribute if one.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    bias = graph.array(conv.input[2]).astype(np.float64) if len(conv.input) > 2 else 0.0
    shift = graph.helper.from_array(((bias - mean) * factor + beta).astype(np.float32))
    del conv.input[2:]
    conv.input.append(graph.add(f"{norm.output[0]}.bias", shift))
    conv.output[0] = norm.output[0]
    graph.graph.node.remove(norm)
    signs = np.where(factor < 0, -1, 1).astype(np.int8).reshape(-1, *[1] * (codes.ndim - 1))
    return (scale * np.maximum(np.abs(factor), 1e-12)).astype(np.float32), codes * signs
