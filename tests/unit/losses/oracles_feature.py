"""The feature losses once more, from their formulas, in numpy and float64.

Each oracle takes the learned state of the loss (its state_dict as arrays) and the same named signals. Nothing is
shared with the implementations: pooling averages bins, convolutions add shifted images, the MMD compares channels one
by one, OFD's margin is an integral.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]


def stages(x):
    return x if isinstance(x, list) else [x]


# ---------------------------------------------------------------- building blocks
def pool(x: Array, size: tuple[int, int]) -> Array:
    """Adaptive average pooling: bin i of m over n places covers ⌊i·n/m⌋ … ⌈(i+1)·n/m⌉ − 1."""
    out = np.empty((*x.shape[:2], *size))
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i * x.shape[2] // size[0], -(-(i + 1) * x.shape[2] // size[0]))
            columns = slice(j * x.shape[3] // size[1], -(-(j + 1) * x.shape[3] // size[1]))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def match(s: Array, t: Array) -> tuple[Array, Array]:
    if s.ndim != 4:
        return s, t
    size = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return pool(s, size), pool(t, size)


def conv(x: Array, state: State, name: str, flipped: bool = False) -> Array:
    """A convolution with zero padding that keeps the size, or (vectors, tokens) a linear layer.

    ``flipped``: transposed, of stride 1, that is with channels swapped and the kernel turned by 180°.
    """
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    if x.ndim != 4:
        return x @ weight.T + (0 if bias is None else bias)
    if flipped:
        weight = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    k, (h, w) = weight.shape[-1], x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    out = sum(
        np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + h, j : j + w])
        for i in range(k)
        for j in range(k)
    )
    return out + (0 if bias is None else bias[:, None, None])


def batch_norm(x: Array, state: State, name: str) -> Array:
    """By the statistics of the batch, as in training."""
    axes = (0, 2, 3) if x.ndim == 4 else (0,)
    x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
    return x * state[f"{name}.weight"].reshape(shape) + state[f"{name}.bias"].reshape(shape)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def nearest(x: Array, size: tuple[int, int]) -> Array:
    """Nearest-neighbour resizing: place i of m shows place ⌊i·n/m⌋ of n."""
    rows = [i * x.shape[2] // size[0] for i in range(size[0])]
    columns = [j * x.shape[3] // size[1] for j in range(size[1])]
    return x[:, :, rows][:, :, :, columns]


def unit(x: Array, axis) -> Array:
    return x / np.maximum(np.sqrt((x**2).sum(axis, keepdims=True)), 1e-12)


def channels_last(x: Array) -> Array:
    """[B, places, channels]."""
    return x.reshape(*x.shape[:2], -1).swapaxes(1, 2) if x.ndim == 4 else x


# ---------------------------------------------------------------- losses
def fitnet(state: State, student: Array, teacher: Array) -> float:
    s, t = match(student, teacher)
    if "regressor.weight" in state:
        guess = conv(s, state, "regressor")
    else:
        guess = relu(batch_norm(conv(s, state, "regressor.0"), state, "regressor.1"))
    return ((guess - t) ** 2).mean()


def at(state: State, student, teacher) -> float:
    total = 0.0
    for s, t in zip(stages(student), stages(teacher), strict=True):
        a, b = (unit((channels_last(x) ** 2).mean(2), 1) for x in match(s, t))
        total += ((a - b) ** 2).mean()
    return total


def vid(state: State, student, teacher) -> float:
    total = 0.0
    for i, pair in enumerate(zip(stages(student), stages(teacher), strict=True)):
        s, t = match(*pair)
        for layer in (0, 2, 4):
            s = conv(relu(s) if layer else s, state, f"regressors.{i}.{layer}")
        variance = np.log(1 + np.exp(state[f"rhos.{i}"])) + 1e-5
        variance = variance[:, None, None] if t.ndim == 4 else variance
        total += (0.5 * ((s - t) ** 2 / variance + np.log(variance))).mean()
    return total


def nst(state: State, student, teacher) -> float:
    total = 0.0
    for pair in zip(stages(student), stages(teacher), strict=True):
        s, t = (unit(channels_last(x), 1) for x in match(*pair))
        for x, y in zip(s, t, strict=True):
            kernel = {
                name: np.mean([(u @ v) ** 2 for u in a.T for v in b.T])
                for name, a, b in (("xx", x, x), ("yy", y, y), ("xy", x, y))
            }
            total += (kernel["xx"] + kernel["yy"] - 2 * kernel["xy"]) / len(s)
    return total


def fsp(state: State, student, teacher) -> float:
    def flow(a: Array, b: Array) -> Array:
        a, b = match(a, b)
        return np.einsum("bihw,bjhw->bij", a, b) / (a.shape[2] * a.shape[3])

    return sum(
        ((flow(student[i], student[i + 1]) - flow(teacher[i], teacher[i + 1])) ** 2).mean()
        for i in range(len(student) - 1)
    )


def connected(s: Array, state: State, i: int) -> Array:
    if f"connectors.{i}.0.weight" not in state:
        return s
    return batch_norm(conv(s, state, f"connectors.{i}.0"), state, f"connectors.{i}.1")


def ab(state: State, student, teacher, margin: float = 1.0) -> float:
    total, n = 0.0, len(stages(student))
    for i, pair in enumerate(zip(stages(student), stages(teacher), strict=True)):
        s, t = match(*pair)
        s = connected(s, state, i)
        hinge = np.where((s > -margin) & (t <= 0), (s + margin) ** 2, 0)
        hinge = hinge + np.where((s <= margin) & (t > 0), (s - margin) ** 2, 0)
        total += hinge.sum() / len(s) * 2.0 ** (i + 1 - n)
    return total


def encode(x: Array, state: State, name: str, flipped: bool = False) -> Array:
    for layer in (0, 2, 4):
        x = conv(x, state, f"{name}.{layer}", flipped)
        x = np.where(x > 0, x, 0.1 * x)
    return x


def ft(state: State, student: Array, teacher: Array) -> float:
    s, t = match(encode(student, state, "translator"), encode(teacher, state, "encoder"))
    s, t = (unit(x.reshape(len(x), -1), 1) for x in (s, t))
    return np.abs(s - t).mean()


def ft_reconstruction(state: State, teacher: Array) -> float:
    return ((encode(encode(teacher, state, "encoder"), state, "decoder", flipped=True) - teacher) ** 2).mean()


def silence(weight: float, bias: float) -> float:
    """E[x | x < 0] of N(bias, weight²), by adding up the density over 12 standard deviations below min(bias, 0)."""
    top = min(0.0, bias + 12 * abs(weight))
    x = np.linspace(min(top, bias) - 12 * abs(weight), top, 200_001)
    log_density = -0.5 * ((x - bias) / weight) ** 2
    density = np.exp(log_density - log_density.max())
    return float(np.trapezoid(x * density, x) / np.trapezoid(density, x))


def ofd(state: State, student, teacher, bn_weight, bn_bias) -> float:
    total, n = 0.0, len(stages(student))
    signals = zip(*(stages(x) for x in (student, teacher, bn_weight, bn_bias)), strict=True)
    for i, (s, t, weight, bias) in enumerate(signals):
        t = pool(t, s.shape[2:]) if t.ndim == 4 else t
        s = connected(s, state, i)
        margin = np.array([silence(*p) for p in zip(weight, bias, strict=True)])
        target = np.maximum(t, margin[:, None, None] if t.ndim == 4 else margin)
        total += np.where((s > target) | (t > 0), (s - target) ** 2, 0).sum() / len(s) * 2.0 ** (i + 1 - n)
    return total


def hcl(s: Array, t: Array) -> float:
    total, weights, weight = ((s - t) ** 2).mean(), 1.0, 1.0
    for side in (4, 2, 1):
        if side < min(s.shape[2:]):
            weight /= 2
            weights += weight
            total += weight * ((pool(s, (side, side)) - pool(t, (side, side))) ** 2).mean()
    return total / weights


def reviewkd(state: State, student, teacher) -> float:
    total, below = 0.0, None
    for i in reversed(range(len(student))):
        s, t = (x if x.ndim == 4 else x[:, :, None, None] for x in (student[i], teacher[i]))
        x = batch_norm(conv(s, state, f"fusions.{i}.enter.0"), state, f"fusions.{i}.enter.1")
        if below is not None:
            y = nearest(below, x.shape[2:])
            share = 1 / (1 + np.exp(-conv(np.concatenate([x, y], 1), state, f"fusions.{i}.attend.0")))
            x = x * share[:, :1] + y * share[:, 1:]
        below = nearest(x, t.shape[2:])
        guess = batch_norm(conv(below, state, f"fusions.{i}.leave.0"), state, f"fusions.{i}.leave.1")
        total += hcl(guess, t)
    return total


def srrl(
    state: State, student: Array, teacher: Array, classifier_weight, teacher_logits, classifier_bias=0.0, a=1.0, b=1.0
) -> float:
    guess = relu(batch_norm(conv(student, state, "regressor.0"), state, "regressor.1"))
    guess, target = (x.mean((2, 3)) if x.ndim == 4 else x for x in (guess, teacher))
    logits = guess @ classifier_weight.T + classifier_bias
    return a * ((guess - target) ** 2).mean() + b * ((logits - teacher_logits) ** 2).mean()


def simkd_projected(state: State, student: Array) -> Array:
    if student.ndim != 4:
        return conv(student, state, "projector")
    for layer in (0, 3, 6):
        student = relu(batch_norm(conv(student, state, f"projector.{layer}"), state, f"projector.{layer + 1}"))
    return student


def cat_kd(state: State, student, teacher, student_weight, teacher_weight, side: int = 2, normalize=True) -> float:
    maps = []
    for feature, weight in ((student, student_weight), (teacher, teacher_weight)):
        cam = pool(np.einsum("kc,bchw->bkhw", weight, feature), (side, side))
        maps.append(unit(cam, (2, 3)) if normalize else cam)
    return ((maps[0] - maps[1]) ** 2).mean()


def mgd(state: State, student: Array, teacher: Array, kept: Array) -> float:
    s, t = match(student, teacher)
    s = (conv(s, state, "align") if "align.weight" in state else s) * kept
    guess = conv(relu(conv(s, state, "generate.0")), state, "generate.2")
    return ((guess - t) ** 2).sum() / len(s)


def gaussian_entropy_floor(variance: float) -> float:
    """VID's value where the regressor is exact."""
    return 0.5 * math.log(variance)
