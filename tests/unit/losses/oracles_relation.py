"""The relation losses written from their formulas in plain Python floats, one entry at a time.

Slow on purpose: nothing here shares an operation, or torch, with the code under test.
"""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def dot(x: Sequence[float], y: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def minus(x: Sequence[float], y: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(x, y, strict=True)]


def unit(x: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(x, x))
    return [a / length if length else 0.0 for a in x]


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def sp(student: Rows, teacher: Rows) -> float:
    s, t = ([unit([dot(x, y) for y in rows]) for x in rows] for rows in (student, teacher))
    size = len(student)
    return math.fsum((t[i][j] - s[i][j]) ** 2 for i in range(size) for j in range(size)) / size**2


def _relative_distances(rows: Rows) -> list[list[float]]:
    distance = [[math.sqrt(dot(minus(x, y), minus(x, y))) for y in rows] for x in rows]
    apart = [d for row in distance for d in row if d > 0]
    mean = math.fsum(apart) / len(apart) if apart else 1.0
    return [[d / mean for d in row] for row in distance]


def rkd_distance(student: Rows, teacher: Rows) -> float:
    s, t = _relative_distances(student), _relative_distances(teacher)
    size = len(student)
    return math.fsum(huber(s[i][j] - t[i][j]) for i in range(size) for j in range(size)) / size**2


def rkd_angle(student: Rows, teacher: Rows) -> float:
    total, size = [], len(student)
    for i in range(size):
        s = [unit(minus(x, student[i])) for x in student]
        t = [unit(minus(x, teacher[i])) for x in teacher]
        total += [huber(dot(s[j], s[k]) - dot(t[j], t[k])) for j in range(size) for k in range(size)]
    return math.fsum(total) / size**3


def rkd(student: Rows, teacher: Rows, distance_weight: float = 25.0, angle_weight: float = 50.0) -> float:
    return distance_weight * rkd_distance(student, teacher) + angle_weight * rkd_angle(student, teacher)


def pkt(student: Rows, teacher: Rows, epsilon: float = 1e-7) -> float:
    def probabilities(rows: Rows) -> list[list[float]]:
        near = [[(dot(unit(x), unit(y)) + 1) / 2 + epsilon for y in rows] for x in rows]
        return [[p / math.fsum(row) for p in row] for row in near]

    s, t = probabilities(student), probabilities(teacher)
    size = len(student)
    return math.fsum(t[i][j] * math.log(t[i][j] / s[i][j]) for i in range(size) for j in range(size)) / size**2


def cc(student: Rows, teacher: Rows, gamma: float = 0.4, order: int = 2) -> float:
    def kernel(x: Sequence[float], y: Sequence[float]) -> float:
        near = dot(unit(x), unit(y))
        return math.exp(-2 * gamma) * sum((2 * gamma * near) ** p / math.factorial(p) for p in range(order + 1))

    size = len(student)
    return (
        math.fsum(
            (kernel(teacher[i], teacher[j]) - kernel(student[i], student[j])) ** 2
            for i in range(size)
            for j in range(size)
        )
        / size**2
    )


def gkd(student: Rows, teacher: Rows) -> float:
    def graph(rows: Rows) -> list[list[float]]:
        near = [[max(0.0, dot(unit(x), unit(y))) if x is not y else 0.0 for y in rows] for x in rows]
        degree = [math.fsum(row) for row in near]
        return [
            [value / math.sqrt(degree[i] * degree[j]) if value else 0.0 for j, value in enumerate(row)]
            for i, row in enumerate(near)
        ]

    s, t = graph(student), graph(teacher)
    return math.fsum((a - b) ** 2 for x, y in zip(s, t, strict=True) for a, b in zip(x, y, strict=True))


def irg_edges(rows: Rows) -> list[list[float]]:
    square = [[dot(minus(x, y), minus(x, y)) for y in rows] for x in rows]
    most = max(map(max, square)) or 1.0
    return [[value / most for value in row] for row in square]


def irg(student: Rows, teacher: Rows) -> float:
    s, t = irg_edges(student), irg_edges(teacher)
    apart = [(a - b) ** 2 for x, y in zip(s, t, strict=True) for a, b in zip(x, y, strict=True)]
    return math.fsum(apart) / 2 / len(s)


def crd_side(views: Rows, bank: Rows, keys: Sequence[Sequence[int]], temperature: float, z: float | None) -> float:
    """One side: ``views`` [B, d] against ``bank`` [N, d] at ``keys`` [B, 1 + K], positive first; Z of these if None."""
    raw = [[math.exp(dot(v, bank[k]) / temperature) for k in row] for v, row in zip(views, keys, strict=True)]
    examples, negatives = len(bank), len(keys[0]) - 1
    if z is None:
        z = examples * math.fsum(math.fsum(row) for row in raw) / (len(raw) * len(raw[0]))
    loss = 0.0
    for row in raw:
        h = [p / z / (p / z + negatives / examples) for p in row]
        loss -= math.log(h[0]) + math.fsum(math.log(1 - x) for x in h[1:])
    return loss / len(raw)
