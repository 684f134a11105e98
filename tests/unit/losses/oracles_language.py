"""The losses of language models row by row in float64 numpy, written from the formulas."""

import numpy as np
from tests.unit.losses.oracles_logit import Array, mean, pairs, softmax


def divergence(a: Array, b: Array) -> float:
    """KL of two distributions; 0·log 0 is 0."""
    there = a > 0
    return float((a[there] * np.log(a[there] / b[there])).sum())


def both(student: Array, teacher: Array, temperature: float) -> list[tuple[Array, Array]]:
    return [(softmax(t, temperature), softmax(s, temperature)) for s, t in pairs(student, teacher)]


def reverse_kl(student: Array, teacher: Array, temperature: float) -> float:
    return temperature**2 * mean([divergence(p, q) for q, p in both(student, teacher, temperature)])


def jsd(student: Array, teacher: Array, beta: float, temperature: float, normalized: bool = False) -> float:
    if beta == 1:
        return reverse_kl(student, teacher, temperature)
    if beta == 0:
        return reverse_kl(teacher, student, temperature)
    scale = temperature**2 / (beta * (1 - beta) if normalized else 1)
    found = []
    for q, p in both(student, teacher, temperature):
        m = beta * q + (1 - beta) * p
        found.append(beta * divergence(q, m) + (1 - beta) * divergence(p, m))
    return scale * mean(found)


def skew_kl(student: Array, teacher: Array, skew: float, temperature: float) -> float:
    each = [divergence(q, skew * q + (1 - skew) * p) for q, p in both(student, teacher, temperature)]
    return temperature**2 * mean(each)


def skew_reverse_kl(student: Array, teacher: Array, skew: float, temperature: float) -> float:
    each = [divergence(p, skew * p + (1 - skew) * q) for q, p in both(student, teacher, temperature)]
    return temperature**2 * mean(each)


def akl(student: Array, teacher: Array, mu: float, temperature: float) -> float:
    found = []
    for q, p in both(student, teacher, temperature):
        head, total = [], 0.0
        for v in sorted(range(len(q)), key=lambda v: -q[v]):
            total += q[v]
            if total <= mu or not head:
                head.append(v)
        gap = abs(q - p)
        share = gap[head].sum() / gap.sum()
        found.append(share * divergence(q, p) + (1 - share) * divergence(p, q))
    return temperature**2 * mean(found)


def total_variation(student: Array, teacher: Array) -> float:
    return mean([float(abs(q - p).sum() / 2) for q, p in both(student, teacher, 1.0)])
