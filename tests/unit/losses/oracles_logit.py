"""The logit losses row by row in float64 numpy, written from the formulas of the papers and of LOSSES.md.

They share nothing with the implementation: probabilities are normalised exponentials, sums are loops over rows.
"""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def softmax(z: Array, temperature: float = 1.0) -> Array:
    e = np.exp((z - z.max()) / temperature)
    return e / e.sum()


def log_softmax(z: Array, temperature: float = 1.0) -> Array:
    shifted = (z - z.max()) / temperature
    return shifted - np.log(np.exp(shifted).sum())


def kl(z_t: Array, z_s: Array, t_teacher: float, t_student: float) -> float:
    q = softmax(z_t, t_teacher)
    return float((q * (log_softmax(z_t, t_teacher) - log_softmax(z_s, t_student))).sum())


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def pairs(student: Array, teacher: Array) -> list[tuple[Array, Array]]:
    return list(zip(student, teacher, strict=True))


def without(z: Array, y: int) -> Array:
    return np.delete(z, y)


def soft_target(student: Array, teacher: Array, temperature: float) -> float:
    return temperature**2 * mean([kl(t, s, temperature, temperature) for s, t in pairs(student, teacher)])


def logit_mse(student: Array, teacher: Array) -> float:
    return mean([float(np.dot(s - t, s - t)) for s, t in pairs(student, teacher)])


def dkd(student: Array, teacher: Array, label: Array, alpha: float, beta: float, temperature: float) -> float:
    of_label, of_others = [], []
    for s, t, y in zip(student, teacher, label, strict=True):
        log_p, log_q = log_softmax(s, temperature), log_softmax(t, temperature)
        p_rest, q_rest = np.exp(without(log_p, y)).sum(), np.exp(without(log_q, y)).sum()
        of_label.append(np.exp(log_q[y]) * (log_q[y] - log_p[y]) + q_rest * np.log(q_rest / p_rest))
        of_others.append(kl(without(t, y), without(s, y), temperature, temperature))
    return temperature**2 * (alpha * mean(of_label) + beta * mean(of_others))


def nkd(student: Array, teacher: Array, label: Array, gamma: float, temperature: float) -> float:
    total = []
    for s, t, y in zip(student, teacher, label, strict=True):
        others = softmax(without(t, y), temperature) * log_softmax(without(s, y), temperature)
        total.append(-softmax(t)[y] * log_softmax(s)[y] - gamma * temperature**2 * others.sum())
    return mean(total)


def spread(a: Array) -> float:
    return float(np.linalg.norm(a - a.mean()) / np.linalg.norm(a))


def pearson(a: Array, b: Array) -> float:
    """0 where one of them is constant, which is to say that its spread is at most 1e-6 of its norm."""
    if spread(a) <= 1e-6 or spread(b) <= 1e-6:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def dist(student: Array, teacher: Array, beta: float, gamma: float, temperature: float) -> float:
    p = np.stack([softmax(z, temperature) for z in student])
    q = np.stack([softmax(z, temperature) for z in teacher])
    rows = mean([pearson(a, b) for a, b in pairs(p, q)])
    classes = mean([pearson(a, b) for a, b in pairs(p.T, q.T)])
    return temperature**2 * (beta * (1 - rows) + gamma * (1 - classes))


def dtkd(student: Array, teacher: Array, alpha: float, beta: float, temperature: float) -> float:
    dynamic = []
    for s, t in pairs(student, teacher):
        m_s, m_t = max(s.max(), 0.01), max(t.max(), 0.01)
        t_s, t_t = 2 * temperature * m_s / (m_s + m_t), 2 * temperature * m_t / (m_s + m_t)
        dynamic.append(t_s * t_t * kl(t, s, t_t, t_s))
    return alpha * mean(dynamic) + beta * soft_target(student, teacher, temperature)


def standardised(z: Array) -> Array:
    return (z - z.mean()) / (z.std(ddof=1) + 1e-7)


def lskd(student: Array, teacher: Array, temperature: float) -> float:
    standard = [np.stack([standardised(row) for row in z]) for z in (student, teacher)]
    return soft_target(standard[0], standard[1], temperature)


def skd(student: Array, teacher: Array, multiplier: float, temperature: float) -> float:
    def projected(z: Array) -> Array:
        kept = np.isfinite(z)
        mean = z[kept].mean()
        return np.where(kept, multiplier * (z - mean) / np.sqrt(((z[kept] - mean) ** 2).mean() + 1e-7), -np.inf)

    ours, theirs = (np.stack([projected(row) for row in z]) for z in (student, teacher))
    return soft_target(ours, theirs, temperature)


def ctkd(student: Array, teacher: Array, start: float, span: float, theta: float = 1.0) -> float:
    return soft_target(student, teacher, start + span / (1 + np.exp(-theta)))


def mlkd(
    student: Array, teacher: Array, temperatures: Sequence[float], instance: float, batch: float, classes: float
) -> float:
    total = 0.0
    for temperature in temperatures:
        p = np.stack([softmax(z, temperature) for z in student])
        q = np.stack([softmax(z, temperature) for z in teacher])
        total += instance * soft_target(student, teacher, temperature)
        total += batch * ((p @ p.T - q @ q.T) ** 2).sum() / p.shape[0]
        total += classes * ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[1]
    return float(total)


def ttm(student: Array, teacher: Array, temperature: float, weighted: bool = False) -> float:
    total = []
    for s, t in pairs(student, teacher):
        powered = softmax(t) ** (1 / temperature)
        z = powered.sum()
        q = powered / z
        divergence = float((q * (np.log(q) - log_softmax(s))).sum())
        total.append(z * divergence if weighted else divergence)
    return mean(total)


def wttm(student: Array, teacher: Array, temperature: float) -> float:
    return ttm(student, teacher, temperature, weighted=True)


def wsld(student: Array, teacher: Array, label: Array, temperature: float) -> float:
    total = []
    for s, t, y in zip(student, teacher, label, strict=True):
        ratio = -log_softmax(s)[y] / (-log_softmax(t)[y] + 1e-7)
        soft = -(softmax(t, temperature) * log_softmax(s, temperature)).sum()
        total.append((1 - np.exp(-ratio)) * soft)
    return temperature**2 * mean(total)


def tfkd(student: Array, label: Array, correct: float, temperature: float) -> float:
    total = []
    for s, y in zip(student, label, strict=True):
        virtual = np.full(len(s), (1 - correct) / (len(s) - 1))
        virtual[y] = correct
        powered = virtual ** (1 / temperature)
        q = powered / powered.sum()
        total.append(float((q * (np.log(q) - log_softmax(s, temperature))).sum()))
    return temperature**2 * mean(total)


def pskd(student: Array, label: Array, previous: Array, share: float) -> float:
    """Of rows seen before; ``previous`` are their probabilities of an epoch ago."""
    total = []
    for s, y, before in zip(student, label, previous, strict=True):
        target = share * before
        target[y] += 1 - share
        total.append(-(target * log_softmax(s)).sum())
    return mean(total)


def rld(
    student: Array,
    teacher: Array,
    label: Array,
    alpha: float,
    beta: float,
    temperature: float,
    confidence_temperature: float = 1.0,
) -> float:
    confidence, correlation = [], []
    for s, t, y in zip(student, teacher, label, strict=True):
        log_p, log_q = log_softmax(s, confidence_temperature), log_softmax(t, confidence_temperature)
        first = int(np.argmax(t))
        p_rest, q_rest = np.exp(without(log_p, y)).sum(), np.exp(without(log_q, first)).sum()
        confidence.append(np.exp(log_q[first]) * (log_q[first] - log_p[y]) + q_rest * np.log(q_rest / p_rest))
        below = t < t[y]
        correlation.append(kl(t[below], s[below], temperature, temperature) if below.any() else 0.0)
    return alpha * confidence_temperature**2 * mean(confidence) + beta * temperature**2 * mean(correlation)


def ofa(student: Array, teacher: Array, label: Array, eps: float, temperature: float) -> float:
    total = []
    for s, t, y in zip(student, teacher, label, strict=True):
        hot = np.eye(len(s))[y]
        target = (softmax(t, temperature) + hot) ** eps - hot
        total.append(-float((target * log_softmax(s, temperature)).sum()))
    return mean(total)
