"""The constants of large sweeps and large caches: what one job, one token and one gigabyte cost.

    python benchmarks/scale.py [--jobs 300]

Trains one small job, copies its folder so many times, and measures the rest in this process. Prints CPU time, files and
bytes for each unit; docs/scale.md multiplies them.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from clock import cpu_seconds
from hydra import compose, initialize_config_dir

import tutelage.cli.main  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage.compat.hydra import compose_quickly
from tutelage.config import resolvers
from tutelage.config.paths import conf_dir
from tutelage.evaluation.table import multirun_table
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.status import JobStatus
from tutelage.sources.cached import _expand_topk, topk_compress

JOB = ["trainer.max_epochs=2"]


def small_job(root: Path) -> Path:
    """Trains one job in ``root`` and returns its folder."""
    run = [sys.executable, "-m", "tutelage", "distill", *JOB, f"hydra.run.dir={root / 'job'}"]
    subprocess.run([*run, f"paths.artifacts={root / 'artifacts'}"], check=True, stdout=subprocess.DEVNULL)
    return root / "job"


def of_jobs(root: Path, count: int) -> None:
    """Prints what a job's folder holds and what reading it costs."""
    job = small_job(root)
    inside = list(job.rglob("*"))
    files = [path for path in inside if path.is_file()]
    weights = sum(path.stat().st_size for path in files if path.suffix in (".safetensors", ".ckpt"))
    rest = sum(path.stat().st_size for path in files) - weights
    print(
        f"a job's folder: {len(files)} files, {len(inside) - len(files) + 1} folders, {rest >> 10} KiB beside weights,"
    )
    print("  states and predictions")
    folders = [Path(shutil.copytree(job, root / "sweep" / str(number))) for number in range(count)]
    _print("tutelage status, a job", cpu_seconds(lambda: [JobStatus.read(folder) for folder in folders], 1) / count)
    metrics = {folder.name: read_json(folder / "metrics.json") for folder in folders}
    _print("a sweep's last table, a job", cpu_seconds(lambda: multirun_table(metrics), 1) / count)
    _print("a heartbeat", cpu_seconds(lambda: write_json(job / "heartbeat.json", {"time": 0.0}, durable=False), 1000))
    asked = ["data=mnist", "loss=dkd", "loss.temperature=4"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        compose("distill", asked)
        _print("composing a job's config", cpu_seconds(lambda: compose("distill", asked), 5))


def of_tokens(vocabulary: int, top: int, tokens: int = 2048) -> None:
    """Prints size and time of a token's ``top`` most probable classes."""
    logits = torch.randn(tokens, vocabulary)
    kept = topk_compress(logits, top)
    stored = {name: x.half() if x.is_floating_point() else x for name, x in kept.items() if name != "logits_size"}
    size = sum(x.nbytes for x in stored.values()) / tokens
    print(f"a token of {vocabulary} with top={top}: {size:.0f} bytes (all in half precision: {2 * vocabulary})")
    _print("  to choose them", cpu_seconds(lambda: topk_compress(logits, top), 3) / tokens)
    values, classes, rest = (kept[name].float() for name in ("logits_top", "logits_class", "logits_rest"))
    _print("  to expand them", cpu_seconds(lambda: _expand_topk(values, classes, rest, vocabulary), 3) / tokens)


def of_bytes(size: int = 1 << 28) -> None:
    """Prints the speed of a checksum."""
    block = torch.randint(0, 255, (size,), dtype=torch.uint8).numpy().data
    print(f"checksums: {size / 1e9 / cpu_seconds(lambda: zlib.crc32(block), 3):.1f} GB/s")


def _print(name: str, seconds: float) -> None:
    print(f"{name}: {1e6 * seconds:,.0f} µs" if seconds < 1e-3 else f"{name}: {1e3 * seconds:,.1f} ms")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300, help="copies of a job's folder")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resolvers.register()
    compose_quickly()
    with tempfile.TemporaryDirectory() as folder:
        of_jobs(Path(folder), chosen.jobs)
    of_tokens(32_000, 64)
    of_bytes()
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    main()
