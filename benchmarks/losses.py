"""Forward and backward of every loss against the cheapest straightforward version in plain torch.

    python benchmarks/losses.py [--quick] [--rounds 15] [--threads 1] [--only soft_target rkd …]

Each plain version is the formula as one would write it by hand, with no check and no care for precision, masks or equal
examples; where a loss learns layers it uses the loss's own, so that only what stands around them is compared. Both
run interleaved on the same tensors, forward and backward to the student and to all that the loss learns; printed are
medians of CPU time (steadier than wall clock on a shared machine) and their ratio: below 1 the loss is the faster.
After it the peak of live memory in one forward and backward of the soft target, in full-size float32 tensors.

A new loss is one line in ``CASES``, and a function where its formula takes more.
"""

import argparse
import importlib
import inspect
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler chats, and complains of a missing GPU

import tutelage
import tutelage.cli.main  # sets OMP_WAIT_POLICY before torch is imported

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.profiler import profile

Signals = dict[str, Any]
LOSSES = Path(tutelage.__file__).parent / "losses"
FILES = {path.stem: f"tutelage.losses.{path.parent.name}.{path.stem}" for path in LOSSES.glob("*/*.py")}  # → module
LOGITS = ([64, 10], [64, 100], [64, 1000], [256, 32000])
MAPS = ([64, 64, 8, 8],)
EMBEDDINGS = ([64, 256],)
QUICK = ([64, 100], *MAPS, *EMBEDDINGS)
EXAMPLES = 50_000


def soft(student: Tensor, teacher: Tensor, t: float | Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="batchmean") * t * t


def dkd(m: nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    hit = F.one_hot(label, student.shape[1])
    p, q = F.softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    b, c = ((x * hit).sum(1) for x in (p, q))
    of_label = F.kl_div(torch.stack([b, 1 - b], 1).log(), torch.stack([c, 1 - c], 1), reduction="batchmean") * 16
    return of_label + 8 * soft(student - 1000 * hit, teacher - 1000 * hit, 4.0)


def nkd(m: nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    p, y = F.log_softmax(student, 1), label[:, None]
    trust = F.softmax(teacher, 1).gather(1, y).detach()
    rest = torch.ones_like(student, dtype=torch.bool).scatter(1, y, False)
    others = [x[rest].view(len(x), -1) for x in (student, teacher)]
    return (
        -(trust * p.gather(1, y)).mean() - 1.5 * (F.softmax(others[1], 1) * F.log_softmax(others[0], 1)).sum(1).mean()
    )


def pearson(x: Tensor, y: Tensor, dim: int) -> Tensor:
    return F.cosine_similarity(x - x.mean(dim, keepdim=True), y - y.mean(dim, keepdim=True), dim)


def dist(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    p, q = F.softmax(student, 1), F.softmax(teacher, 1)
    return 2 - pearson(p, q, 1).mean() - pearson(p, q, 0).mean()


def dtkd(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = student.amax(1, keepdim=True), teacher.amax(1, keepdim=True)
    ts, tt = 8 * s / (s + t), 8 * t / (s + t)
    rows = F.kl_div(F.log_softmax(student / ts, 1), F.softmax(teacher / tt, 1), reduction="none").sum(1)
    return 3 * (rows * (ts * tt)[:, 0]).mean() + soft(student, teacher, 4.0)


def lskd(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7) for x in (student, teacher))
    return soft(s, t, 2.0)


def mlkd(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    total = torch.zeros(())
    for t in (2.0, 3.0, 4.0, 5.0, 6.0):
        p, q = F.softmax(student / t, 1), F.softmax(teacher / t, 1)
        total = total + soft(student, teacher, t) + (p @ p.T - q @ q.T).square().sum() / len(p)
        total = total + (p.T @ p - q.T @ q).square().sum() / p.shape[1]
    return total


def wttm(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    z = F.softmax(teacher, 1).pow(0.1).sum(1)
    return (z * F.kl_div(F.log_softmax(student, 1), F.softmax(teacher / 10, 1), reduction="none").sum(1)).mean()


def wsld(m: nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    s, t = (F.cross_entropy(x.detach(), label, reduction="none") for x in (student, teacher))
    cross = -(F.softmax(teacher / 2, 1) * F.log_softmax(student / 2, 1)).sum(1)
    return 4 * ((1 - torch.exp(-s / (t + 1e-7))) * cross).mean()


def tfkd(m: nn.Module, student: Tensor, label: Tensor) -> Tensor:
    virtual = torch.full_like(student, 0.01 / (student.shape[1] - 1)).scatter_(1, label[:, None], 0.99)
    return soft(student, virtual.log(), 20.0)


def pskd(m: nn.Module, student: Tensor, label: Tensor, key: Tensor) -> Tensor:
    log_p = F.log_softmax(student, 1)
    target = 0.5 * F.one_hot(label, student.shape[1]) + 0.5 * m.previous[key]
    m.previous[key] = log_p.detach().exp()
    return -(target * log_p).sum(1).mean()


def at(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in (student, teacher))
    return (s - t).pow(2).mean()


def nst(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    return (s @ s.mT).pow(2).mean() + (t @ t.mT).pow(2).mean() - 2 * (s @ t.mT).pow(2).mean()


def vid(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    variance = (F.softplus(m.rhos[0]) + 1e-5)[:, None, None]
    return (((m.regressors[0](student) - teacher) ** 2 / variance + variance.log()) / 2).mean()


def fsp(m: nn.Module, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    s, t = (torch.einsum("bchw,bdhw->bcd", *x) / x[0][0, 0].numel() for x in (student, teacher))
    return (s - t).pow(2).mean()


def ab(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    quiet = (student > -1) & (teacher <= 0)
    loud = (student <= 1) & (teacher > 0)
    return ((student + 1) ** 2 * quiet + (student - 1) ** 2 * loud).sum() / len(student)


def ofd(m: nn.Module, student: Tensor, teacher: Tensor, bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
    z = bn_bias / bn_weight
    margin = bn_bias - bn_weight * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / torch.special.ndtr(-z)
    s, t = m.connectors[0](student), torch.max(teacher, margin[:, None, None])
    return ((s - t) ** 2 * ((s > t) | (teacher > 0))).sum() / len(s)


def ft(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = m.translator(student), m.encoder(teacher)
    return F.l1_loss(F.normalize(s.flatten(1)), F.normalize(t.flatten(1)))


def reviewkd(m: nn.Module, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    y = m.fusions[1].enter(student[1])
    x = m.fusions[0].enter(student[0])
    a, b = m.fusions[0].attend(torch.cat([x, y], 1)).split(1, 1)
    total = torch.zeros(())
    for guess, t in ((m.fusions[1].leave(y), teacher[1]), (m.fusions[0].leave(a * x + b * y), teacher[0])):
        pooled = [(F.adaptive_avg_pool2d(guess, n), F.adaptive_avg_pool2d(t, n)) for n in (4, 2, 1)]
        total = total + sum(
            w * F.mse_loss(*p) for w, p in zip((1, 0.5, 0.25, 0.125), [(guess, t), *pooled], strict=True)
        )
    return total / 1.875


def srrl(m: nn.Module, student: Tensor, teacher: Tensor, classifier_weight: Tensor, teacher_logits: Tensor) -> Tensor:
    s, t = m.regressor(student).mean((2, 3)), teacher.mean((2, 3))
    return F.mse_loss(s, t) + F.mse_loss(s @ classifier_weight.T, teacher_logits)


def cat_kd(m: nn.Module, student: Tensor, teacher: Tensor, student_weight: Tensor, teacher_weight: Tensor) -> Tensor:
    s, t = (torch.einsum("kc,bchw->bkhw", w, x) for w, x in ((student_weight, student), (teacher_weight, teacher)))
    return F.mse_loss(*(F.normalize(F.adaptive_avg_pool2d(x, 2).flatten(2), dim=2) for x in (s, t)))


def mgd(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    mask = torch.rand(len(student), 1, *student.shape[2:]) > 0.5
    return (m.generate(student * mask) - teacher).pow(2).sum() / len(student)


def sp(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(x @ x.T) for x in (student.flatten(1), teacher.flatten(1)))
    return (s - t).pow(2).mean()


def rkd(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    def relations(x: Tensor) -> tuple[Tensor, Tensor]:
        square = x.pow(2).sum(1)
        distance = (square[:, None] + square - 2 * x @ x.T).clamp(min=1e-12).sqrt() * (1 - torch.eye(len(x)))
        arrows = F.normalize(x[None] - x[:, None], dim=2)
        return distance / distance[distance > 0].mean(), torch.bmm(arrows, arrows.mT)

    with torch.no_grad():
        t_distance, t_angle = relations(teacher)
    distance, angle = relations(student)
    return 25 * F.smooth_l1_loss(distance, t_distance) + 50 * F.smooth_l1_loss(angle, t_angle)


def pkt(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    def probabilities(x: Tensor) -> Tensor:
        x = x / (x.norm(dim=1, keepdim=True) + 1e-7)
        near = (x @ x.T + 1) / 2
        return near / near.sum(1, keepdim=True)

    s, t = probabilities(student), probabilities(teacher)
    return (t * torch.log((t + 1e-7) / (s + 1e-7))).mean()


def cc(m: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    near = [F.normalize(e(x)) for e, x in ((m.student_embedding, student), (m.teacher_embedding, teacher))]
    s, t = (sum(math.exp(-0.8) * 0.8**p / math.factorial(p) * (x @ x.T) ** p for p in range(3)) for x in near)
    return F.mse_loss(s, t)


def crd(m: nn.Module, student: Tensor, teacher: Tensor, key: Tensor) -> Tensor:
    v, w = F.normalize(m.student_embedding(student)), F.normalize(m.teacher_embedding(teacher))
    keys = torch.cat([key[:, None], torch.randint(EXAMPLES, (len(key), m.negatives))], 1)
    total, noise = torch.zeros(()), m.negatives / EXAMPLES
    for view, bank in ((v, m.bank[1]), (w, m.bank[0])):
        p = torch.exp(torch.bmm(bank[keys], view[:, :, None])[:, :, 0] / 0.07) / EXAMPLES
        total = total - torch.log(p[:, 0] / (p[:, 0] + noise)).sum() - torch.log(noise / (p[:, 1:] + noise)).sum()
    with torch.no_grad():
        for view, bank in ((v, m.bank[0]), (w, m.bank[1])):
            bank.index_copy_(0, key, F.normalize(0.5 * bank[key] + 0.5 * view))
    return total / len(key)


class Case(NamedTuple):
    """A loss file, its class, the plain version, the shapes, and the arguments of the class."""

    file: str
    name: str
    plain: Callable[..., Tensor]
    shapes: tuple[list[int], ...]
    options: Mapping[str, Any] = MappingProxyType({})


CASES = [
    Case("soft_target", "SoftTarget", lambda m, student, teacher: soft(student, teacher, 4.0), LOGITS),
    Case("logit_mse", "LogitMSE", lambda m, student, teacher: (student - teacher).square().sum(1).mean(), LOGITS),
    Case("dkd", "DKD", dkd, LOGITS),
    Case("nkd", "NKD", nkd, LOGITS),
    Case("dist", "DIST", dist, LOGITS),
    Case("dtkd", "DTKD", dtkd, LOGITS),
    Case("lskd", "LSKD", lskd, LOGITS),
    Case("ctkd", "CTKD", lambda m, student, teacher: soft(student, teacher, m.temperature()), LOGITS),
    Case("mlkd", "MLKD", mlkd, LOGITS[:3]),  # [C, C] of 32000 classes would be 4 GB
    Case(
        "ttm",
        "TTM",
        lambda m, student, teacher: F.kl_div(
            F.log_softmax(student, 1), F.softmax(teacher / 10, 1), reduction="batchmean"
        ),
        LOGITS,
    ),
    Case("ttm", "WTTM", wttm, LOGITS),
    Case("wsld", "WSLD", wsld, LOGITS),
    Case("tfkd", "TfKDReg", tfkd, LOGITS),
    Case("pskd", "PSKD", pskd, LOGITS),
    Case("fitnet", "FitNet", lambda m, student, teacher: F.mse_loss(m.regressor(student), teacher), MAPS),
    Case("at", "AT", at, MAPS),
    Case("nst", "NST", nst, MAPS),
    Case("vid", "VID", vid, MAPS),
    Case("fsp", "FSP", fsp, MAPS),
    Case("ab", "AB", ab, MAPS),
    Case("ofd", "OFD", ofd, MAPS),
    Case("ft", "FT", ft, MAPS),
    Case("reviewkd", "ReviewKD", reviewkd, MAPS),
    Case("srrl", "SRRL", srrl, MAPS),
    Case("simkd", "SimKD", lambda m, projected, teacher: F.mse_loss(projected, teacher), MAPS),
    Case("cat_kd", "CATKD", cat_kd, MAPS),
    Case("mgd", "MGD", mgd, MAPS),
    Case("sp", "SP", sp, MAPS + EMBEDDINGS),
    Case("rkd", "RKD", rkd, EMBEDDINGS),
    Case("pkt", "PKT", pkt, EMBEDDINGS),
    Case("cc", "CC", cc, EMBEDDINGS),
    Case("crd", "CRD", crd, EMBEDDINGS, {"examples": EXAMPLES}),
]
SHARED = {"adapt", "logits", "precision", "warm_up"}  # no losses of their own


def signals(shape: list[int], plain: Callable[..., Tensor]) -> Signals:
    """Returns what the plain version takes beside the module, by the names of its arguments."""
    size, width = shape[:2]
    students, teachers = torch.randn(2, *shape).requires_grad_(), torch.randn(2, *shape)
    staged = plain in (fsp, reviewkd)
    every = {
        "student": list(students) if staged else students[0].detach().requires_grad_(),
        "teacher": list(teachers) if staged else teachers[0],
        "projected": students[0].detach().requires_grad_(),
        "label": torch.randint(min(width, 10), (size,)),
        "key": torch.arange(size),
        "bn_weight": torch.rand(width) + 0.5,
        "bn_bias": torch.randn(width),
        "classifier_weight": torch.randn(100, width),
        "teacher_logits": torch.randn(size, 100),
        "student_weight": torch.randn(100, width),
        "teacher_weight": torch.randn(100, width),
    }
    return {name: every[name] for name in list(inspect.signature(plain).parameters)[1:]}


def built(case: Case, given: Signals) -> nn.Module:
    """The loss after a call that gives it its shapes, in the state in which it trains."""
    module: nn.Module = getattr(importlib.import_module(FILES[case.file]), case.name)(**case.options)
    with torch.no_grad():
        module(**given)
    for hook, arguments in (("prepare", (lambda epoch: [given],)), ("on_epoch_start", (5, 10))):
        if hasattr(module, hook):
            getattr(module, hook)(*arguments)
    return module


def seconds(run: Callable[..., Tensor], given: Signals) -> float:
    start = time.process_time()
    run(**given).backward()
    return time.process_time() - start


def rows(case: Case, shapes: tuple[list[int], ...], rounds: int) -> Iterator[str]:
    for shape in (s for s in case.shapes if s in shapes):
        torch.manual_seed(0)
        given = signals(shape, case.plain)
        module = built(case, given)
        versions: tuple[Callable[..., Tensor], ...] = (module, lambda m=module, **g: case.plain(m, **g))
        times: list[list[float]] = [[], []]
        repeat = 3 if seconds(versions[1], given) < 0.05 else 1
        for _ in range(rounds):
            for version, spent in zip(versions, times, strict=True):
                spent.append(min(seconds(version, given) for _ in range(repeat)))
        ours, plain = (1000 * statistics.median(spent) for spent in times)
        yield f"| {case.name} | {shape} | {ours:.3f} | {plain:.3f} | {ours / plain:.2f} |"


def peak(run: Callable[[], Tensor]) -> int:
    """Bytes that forward and backward hold at most, beyond what lived before; gradients count."""
    with profile(use_device=None, profile_memory=True) as recorded:
        run().backward()
    events = sorted((e.start_ns(), e.nbytes()) for e in recorded.kineto_results.events() if e.name() == "[memory]")
    live = highest = 0
    for _, change in events:
        live += change
        highest = max(highest, live)
    return highest


def memory(shape: list[int]) -> None:
    case = next(c for c in CASES if c.file == "soft_target")
    full = 4 * math.prod(shape)
    print(f"\n| soft target {shape}, peak | full-size float32 tensors |\n|---|---|")
    given = signals(shape, case.plain)
    module = built(case, given)
    for name, run in (("SoftTarget", module), ("plain", lambda **g: case.plain(module, **g))):
        given["student"].grad = None
        print(f"| {name} | {peak(lambda r=run: r(**given)) / full:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape of logits, few rounds")
    parser.add_argument("--rounds", type=int, default=None, help="default 15, with --quick 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=None, metavar="FILE", help="loss files; default all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    unmeasured = sorted(FILES.keys() - {case.file for case in CASES} - SHARED)
    print(f"torch {torch.__version__}, {arguments.threads} threads; not measured: {', '.join(unmeasured) or 'none'}")
    print("| loss | shape | ms | plain ms | ratio |\n|---|---|---|---|---|")
    shapes = QUICK if arguments.quick else LOGITS + MAPS + EMBEDDINGS
    for case in CASES:
        if case.file in FILES and (arguments.only is None or case.file in arguments.only):
            for row in rows(case, shapes, arguments.rounds or (3 if arguments.quick else 15)):
                print(row, flush=True)
    if arguments.only is None or "soft_target" in arguments.only:
        for shape in ([512, 1000],) if arguments.quick else ([512, 1000], [512, 32000]):
            memory(shape)


if __name__ == "__main__":
    main()
