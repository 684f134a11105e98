"""Schemes of quantisation: ``student.quantised=…``, or one of the choices of ``quantise``."""

from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import WITH_UNITS
from tutelage.models.quantised.network import Quantised
from tutelage.models.quantised.ranges import MovingRange
from tutelage.models.quantised.weights import Buckets, LearnedPoints, PerChannel, check_bits


class Integers:
    """Integer weights, with a scale for each output channel, and integer inputs of linear layers and convolutions.

    The network is fake-quantised: it computes in floating point with values that integers and scales stand for;
    ``tutelage.exporting.quantised`` makes integers of it. Biases, normalisation,
    embeddings, transposed convolutions and recurrent layers stay as they are.
    (:class:`~tutelage.models.quantised.weights.PerChannel`, :class:`~tutelage.models.quantised.ranges.MovingRange`.)

    Args:
        bits: of the weights, 2 to 16.
        activations: bits of the inputs, 2 to 16; None: they stay as they are.
        momentum: share of a batch in the moving ranges of the inputs, in (0, 1].

    Raises:
        TutelageError: bits or momentum are out of range.
    """

    def __init__(self, bits: int = 8, activations: int | None = 8, momentum: float = 0.01):
        self.bits = check_bits(bits, "quantised.bits", 2, 16)
        self.activations = None if activations is None else check_bits(activations, "quantised.activations", 2, 16)
        if not 0 < momentum <= 1:
            raise TutelageError(f"quantised.momentum must be above 0 and at most 1; found {momentum}")
        self.momentum = momentum

    def of(self, student: nn.Module) -> Quantised:
        """Returns the network; nothing is known of the ranges of its inputs yet.

        Raises:
            TutelageError: there is no linear layer and no convolution, or one of attention, whose inputs have no hook.
        """
        if self.activations is not None and any(isinstance(one, nn.MultiheadAttention) for one in student.modules()):
            raise TutelageError(
                f"quantised: {type(student).__name__} has nn.MultiheadAttention, whose products can't be reached: "
                "quantised.activations=null rounds its weights alone"
            )
        bits = self.activations
        spans = {} if bits is None else {path: MovingRange(bits, self.momentum) for path in layers_of(student)}
        return Quantised(student, {name: PerChannel(self.bits) for name in _weights(student)}, spans)


class Bucketed:
    """Quantised distillation (Polino et al. 2018): parameters of b bits, uniform within buckets.

    :class:`~tutelage.models.quantised.weights.Buckets` rounds each of them.

    Args:
        bits: b, 1 to 16.
        size: parameters in a bucket, at least 2; published: 256.
        every: whether every parameter is rounded, biases and normalisation too, as published, or weights of linear
            layers and convolutions alone.

    Raises:
        TutelageError: bits or size are out of range.
    """

    def __init__(self, bits: int = 4, size: int = 256, every: bool = True):
        self.bits = check_bits(bits, "quantised.bits", 1, 16)
        if size < 2:
            raise TutelageError(f"quantised.size must be at least 2; found {size}")
        self.size, self.every = size, every

    def of(self, student: nn.Module) -> Quantised:
        """Returns the network.

        Raises:
            TutelageError: only weights are to be rounded, and there is no linear layer and no convolution.
        """
        names = [name for name, _ in student.named_parameters()] if self.every else _weights(student)
        return Quantised(student, {name: Buckets(self.bits, self.size) for name in names}, {})


class Points:
    """Differentiable quantisation (Polino et al. 2018): weights are one of 2^b learned points of their layer.

    The weights themselves are fixed: start them from a trained network (``student.init``, ``student.pretrained``).
    Biases and normalisation learn as ever (:class:`~tutelage.models.quantised.weights.LearnedPoints`).

    Args:
        bits: b, 1 to 8.

    Raises:
        TutelageError: bits are out of range.
    """

    def __init__(self, bits: int = 4):
        self.bits = check_bits(bits, "quantised.bits", 1, 8)

    def of(self, student: nn.Module) -> Quantised:
        """Returns the network.

        Raises:
            TutelageError: there is no linear layer and no convolution.
        """
        found = {}
        for name in _weights(student):
            weight = student.get_parameter(name).requires_grad_(False)
            found[name] = LearnedPoints(self.bits, weight)
        return Quantised(student, found, {})


def layers_of(student: nn.Module) -> list[str]:
    """Returns the paths of linear layers and convolutions, of those that share a weight the first.

    Raises:
        TutelageError: there is none.
    """
    found = {id(one.weight): path for path, one in reversed([*student.named_modules()]) if isinstance(one, WITH_UNITS)}
    if not found:
        raise TutelageError(f"quantised: no linear layer and no convolution in {type(student).__name__}")
    return [*reversed(found.values())]


def _weights(student: nn.Module) -> list[str]:
    return [f"{path}.weight".lstrip(".") for path in layers_of(student)]
