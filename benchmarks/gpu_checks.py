"""Checks on one GPU what only a GPU can show, and writes a table: ``make gpu``, or ``python benchmarks/gpu_checks.py``.

Needs the package and its dependencies alone; a full pass takes under eight minutes on one GPU. ``--device cpu --short``
runs the same checks, fewer of them, without one. Every job is a ``tutelage`` process of its own, so that a device
error in one check cannot spoil another. The exit code is 1 if a check failed.

What is compared, and why with these tolerances:

* The same bits are asked for where both runs use one device: a job twice, a killed job against an undisturbed one.
  TensorFloat-32 is off (torch's default for products; convolutions by ``NVIDIA_TF32_OVERRIDE=0``) and
  ``trainer.deterministic=true`` (the default) chooses deterministic kernels.
* A forward pass on CPU and GPU may differ by float32's order of summation: 1e-4 in mean NLL.
* After training, that last digit is amplified by ReLU and Adam: two points of accuracy, 0.1 in NLL.
* Stacked against single runs in float64: 1e-6, since the order of summation is the only difference.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
PATHS = [str(ROOT / "src"), str(ROOT / "benchmarks"), str(ROOT / "tests" / "helpers")]  # it may not be installed
sys.path[:0] = PATHS

from tutelage.checkpoints.weights import digest, read_state  # noqa: E402

SHIFT = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"
QUIET = ("logger=none", "callbacks.progress=null")
PAIR = ("model@teacher=resnet14", "model@student=resnet8", "trainer.max_epochs=1")
SMALL = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[32]", "student.net.widths=[16]")


def ask(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """A black box for ``sources=black_box``: ten pixels of each image as logits."""
    return images.reshape(len(images), -1)[:, 20:30]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: the group of checks.
        case: what was run.
        passed: whether it came out as promised.
        detail: the figure that shows it, or what went wrong.
    """

    check: str
    case: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Job:
    """A finished ``tutelage`` process.

    Attributes:
        folder: of the run.
        code: exit code.
        text: what it printed.
    """

    folder: Path
    code: int
    text: str

    @property
    def complaint(self) -> str:
        """The last line that it printed."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "printed nothing"

    def nll(self, role: str = "student") -> float:
        """Mean test NLL of the last weights, in nats; NaN if the job did not complete."""
        return nll(self.folder, role)


def nll(folder: Path, role: str = "student") -> float:
    """Reads a run's mean test NLL, in nats; NaN where it has none."""
    file = folder / "metrics.json"
    return json.loads(file.read_text())[role]["last"]["test"]["nll"] if file.is_file() else math.nan


@dataclass(frozen=True)
class Bench:
    """Runs jobs on one device.

    Attributes:
        work: folder for all runs and artifacts.
        device: ``gpu`` or ``cpu``, as Lightning names accelerators.
        short: whether to run a few cases of each check only.
    """

    work: Path
    device: str
    short: bool

    def run(self, name: str, *overrides: str, device: str | None = None, shop: str = "shop") -> Job:
        """Runs ``tutelage distill`` in the folder ``name``; artifacts are shared by jobs with the same ``shop``."""
        where = "hydra.sweep.dir" if "-m" in overrides else "hydra.run.dir"
        words = [f"{where}={name}", f"paths.artifacts={shop}", f"trainer.accelerator={device or self.device}", *QUIET]
        return self.process(name, "distill", *overrides, *words)

    def process(self, name: str, *arguments: str) -> Job:
        """Runs the command line in the work folder."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join(PATHS), "NVIDIA_TF32_OVERRIDE": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "tutelage", *arguments],
            cwd=self.work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        (self.work / f"{name}.log").write_text(done.stdout)
        return Job(self.work / name, done.returncode, done.stdout)

    def some(self, cases: Iterable[str], few: int) -> list[str]:
        """All cases, or the first ``few`` of them in a short pass."""
        return list(cases)[: few if self.short else None]


def losses(bench: Bench) -> Iterator[Row]:
    """Trains one epoch with every loss in each half precision."""
    names = sorted(path.stem for path in (ROOT / "conf" / "loss").glob("[!_]*.yaml"))
    names = [name for name in names if name != "soft_tree"]  # a network of its own: below
    names = ["crd", "fitnet"] if bench.short else names
    precisions = ["bf16-mixed"] if bench.device == "cpu" else ["16-mixed", "bf16-mixed"]
    parts = 1 if bench.short else 4
    sweeps = [(precision, part) for precision in precisions for part in range(parts)]
    bench.run("teacher", *PAIR)  # so that the sweeps do not wait for one another

    def sweep(precision: str, part: int) -> Job:
        chosen = ",".join(names[part::parts])
        return bench.run(f"losses-{precision}-{part}", "-m", f"loss={chosen}", *PAIR, f"trainer.precision={precision}")

    with ThreadPoolExecutor(parts) as pool:
        jobs = list(pool.map(lambda one: sweep(*one), sweeps))
    tree = ("loss=soft_tree", *PAIR, "model@student=soft_tree")
    for precision in () if bench.short else precisions:
        jobs.append(bench.run(f"losses-{precision}-tree", *tree, f"trainer.precision={precision}"))
        sweeps.append((precision, parts))
    for (precision, _), job in zip(sweeps, jobs, strict=True):
        if not (found := sorted(job.folder.rglob("status.json"))):
            yield Row("losses", f"a sweep in {precision}", False, job.complaint)
        for path in found:
            yield _trained("losses", f"{_loss(path.parent)}, {precision}", path.parent)


def _loss(folder: Path) -> str:
    words = re.findall(r"^- loss=(\w+)", (folder / ".hydra" / "overrides.yaml").read_text(), re.MULTILINE)
    return words[-1] if words else folder.name


def _trained(check: str, case: str, folder: Path) -> Row:
    """Passes if the run is complete and its student's test NLL is finite."""
    status = json.loads((folder / "status.json").read_text()) if (folder / "status.json").is_file() else {}
    found, state = nll(folder), status.get("state", "no status")
    passed = state == "COMPLETE" and math.isfinite(found)
    return Row(check, case, passed, f"test NLL {found:.4f}" if passed else f"{state}: {status.get('why') or ''}")


def sources(bench: Bench) -> Iterator[Row]:
    """Trains one epoch with every kind of teacher."""
    logits = np.random.default_rng(0).normal(size=(1200, 10))
    np.savez(bench.work / "outputs.npz", key=np.arange(1200), logits=logits)
    teacher = "sources.teacher"
    asked = (
        "sources=black_box",
        f"{teacher}.ask={{_target_: gpu_checks.ask, _partial_: true}}",
        f"{teacher}.kind=logits",
    )
    cases: dict[str, tuple[str, ...]] = {
        "frozen, asked live": (f"{teacher}.cache=false",),
        "frozen, cached": (),
        "cached, two views": ("sources=cached", "data.views=2", SHIFT),
        "cached, float16, feature maps": ("sources=cached", f"{teacher}.dtype=float16", "loss=fitnet", *PAIR[:2]),
        "moving average": ("sources=ema_teacher",),
        "peers": ("sources=peers", "loss=online/dml"),
        "ensemble": ("sources=ensemble", "ensemble.size=2"),
        "specialists": ("sources=specialists", f"{teacher}.groups=[[3,5,9],[1,8]]"),
        "file of outputs": ("sources=recorded", f"{teacher}.path=outputs.npz", f"{teacher}.kind=logits"),
        "black box": (*asked, f"{teacher}.name=pixels"),
        "assistant": ("+model@assistants.first=mlp",),
        "born-again": ("generations=1",),
        "few labels": ("data.labelled=100", "loss.alpha=0.5"),
    }
    names = bench.some(cases, 3)
    jobs = _at_once(bench, [lambda i=i, n=n: bench.run(f"sources-{i}", *SMALL, "trainer.max_epochs=1", *cases[n])
                            for i, n in enumerate(names)])  # fmt: skip
    for name, job in zip(names, jobs, strict=True):
        row = _trained("sources", name, job.folder)
        yield row if row.passed else Row("sources", name, False, f"{row.detail} {job.complaint}")


def _at_once(bench: Bench, calls: list[Callable[[], Job]]) -> list[Job]:
    with ThreadPoolExecutor(1 if bench.device == "cpu" else 4) as pool:
        return list(pool.map(lambda call: call(), calls))


def views(bench: Bench) -> Iterator[Row]:
    """Compares cached signals of augmented images with a live teacher's."""
    job = (*SMALL, "trainer.max_epochs=2", "data.views=2", SHIFT)
    live = bench.run("views-live", *job, "sources.teacher.cache=false")
    cached = bench.run("views-cached", *job, "sources=cached")
    yield _near("views", "cached against live", cached.nll(), live.nll(), 1e-3, cached.complaint)


def _near(check: str, case: str, found: float, expected: float, tolerance: float, complaint: str) -> Row:
    passed = abs(found - expected) <= tolerance
    detail = f"NLL {found:.6f} and {expected:.6f}, allowed {tolerance:g}"
    return Row(check, case, passed, detail if math.isfinite(found + expected) else complaint)


def resume(bench: Bench) -> Iterator[Row]:
    """Compares a student that was killed and went on, and one that was trained twice, with an undisturbed one."""
    job = (
        *SMALL, "trainer.max_epochs=4", "callbacks.recovery.every_n_steps=6", "scheduler=cosine", SHIFT,
        "teacher.net.dropout=0.2", "student.net.dropout=0.2",
    )  # fmt: skip
    whole, twice = bench.run("resume-whole", *job), bench.run("resume-twice", *job, shop="second shop")
    kill = f"+callbacks.kill={{_target_: faults.KillAt, stage: student, step: 30, marker: {bench.work}/killed}}"
    killed = bench.run("resume-killed", *job, kill)
    again = bench.run("resume-killed", *job, kill)
    digests = [_digest(one.folder) for one in (whole, twice, again)]
    yield Row("bits", "the same job twice", digests[0] == digests[1] != "", f"{digests[0]} and {digests[1]}")
    struck = killed.code == -9 and digests[0] == digests[2] != ""
    yield Row("bits", "killed and resumed", struck, f"exit code {killed.code}; {digests[0]} and {digests[2]}")


def _digest(folder: Path) -> str:
    file = folder / "checkpoints" / "last.safetensors"
    return digest(read_state(file))[:12] if file.is_file() else ""


def against_cpu(bench: Bench) -> Iterator[Row]:
    """Compares the default pair's training, and a forward pass of the same weights, with the CPU's."""
    job = ("trainer.max_epochs=5", "stages.teacher.trainer.max_epochs=5")
    here, there = bench.run("here", *job), bench.run("cpu", *job, device="cpu", shop="cpu shop")
    for role in ("teacher", "control", "student"):
        yield _near("CPU", f"{role}, trained", here.nll(role), there.nll(role), 0.1, here.complaint)
    name = "cuda" if bench.device == "gpu" else "cpu"
    file, found = here.folder / "checkpoints" / "last.safetensors", []
    for device in (name, "cpu"):
        words = (f"checkpoint={file}", f"device={device}", f"hydra.run.dir=evaluate-{device}")
        done = bench.process(f"evaluate-{device}", "evaluate", *words)
        metrics = done.folder / "metrics.json"
        found.append(json.loads(metrics.read_text())["figures"]["nll"] if metrics.is_file() else math.nan)
    yield _near("CPU", "student, the same weights", *found, 1e-4, "evaluate failed")


def stacked(bench: Bench) -> Iterator[Row]:
    """Compares students that train as one module with the same ones alone, in float64."""
    grid = ("-m", "seed=0,1", "loss.temperature=1,4", *SMALL, "trainer.max_epochs=2", "trainer.precision=64-true")
    one = bench.run("stacked", *grid, "launcher=stacked")
    alone = bench.run("alone", *grid, shop="shop of singles")
    pairs = list(
        zip(sorted(one.folder.rglob("metrics.json")), sorted(alone.folder.rglob("metrics.json")), strict=False)
    )
    if len(pairs) != 4:
        yield Row("stacked", "four jobs", False, one.complaint)
    for stack, single in pairs:
        case = stack.parent.name
        yield _near("stacked", case, nll(stack.parent), nll(single.parent), 1e-6, one.complaint)


def ranks(bench: Bench) -> Iterator[Row]:
    """Asks for two ranks on one GPU, which must be refused, and for a sharded network on one device."""
    job = (*SMALL, "trainer.max_epochs=1")
    two = bench.run("ddp", *job, "trainer=ddp")
    if bench.device == "gpu" and torch.cuda.device_count() == 1:
        passed = two.code != 0 and "Traceback" not in two.text and "devices" in two.text
        yield Row("ranks", "trainer=ddp on one GPU is refused", passed, two.complaint)
    else:
        yield _trained("ranks", "trainer=ddp", two.folder)
    one = bench.run("fsdp", *job, "trainer=fsdp", "trainer.devices=1")
    row = _trained("ranks", "trainer=fsdp on one device", one.folder)
    yield row if row.passed else Row("ranks", row.case, False, f"{row.detail} {one.complaint}")


CHECKS = (losses, sources, views, resume, against_cpu, stacked, ranks)


def main() -> int:
    """Runs the checks, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--short", action="store_true", help="a few cases of each check")
    parser.add_argument("--only", nargs="*", choices=[check.__name__ for check in CHECKS], help="these checks alone")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"), help="folder for runs and table.md")
    chosen = parser.parse_args()
    if chosen.device == "gpu" and not torch.cuda.is_available():
        sys.exit("gpu_checks: torch sees no GPU here; --device cpu --short runs the checks without one")
    chosen.output.mkdir(parents=True, exist_ok=True)
    bench, rows = Bench(chosen.output.resolve(), chosen.device, chosen.short), []
    device = torch.cuda.get_device_name() if chosen.device == "gpu" else "CPU"
    lines = [f"{device}, torch {torch.__version__}", "", "| check | case | passed | detail |", "|---|---|---|---|"]
    for check in CHECKS:
        if chosen.only and check.__name__ not in chosen.only:
            continue
        start = time.monotonic()
        for row in check(bench):
            rows.append(row)
            lines.append(f"| {row.check} | {row.case} | {'yes' if row.passed else '**no**'} | {row.detail} |")
            print(lines[-1], flush=True)
        print(f"{check.__name__}: {time.monotonic() - start:.0f} s", flush=True)
        (bench.work / "table.md").write_text("\n".join(lines) + "\n")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed; table: {bench.work / 'table.md'}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
