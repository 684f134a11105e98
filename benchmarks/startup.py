"""CPU seconds (user + system) of the digits job from the start of its process to its first step, of two source trees.

    python benchmarks/startup.py BEFORE/src AFTER/src [PAIRS]
    python benchmarks/startup.py --imports src [PAIRS]    of one tree, against a process that only imports the same

Runs of the two are interleaved; the ratio, or difference, of each pair is what counts.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

JOB = """
import json, os, sys
from tutelage.cli.main import main
from tutelage.training.module import SupervisedModule

def first_step(self, *arguments):
    seconds = sum(os.times()[:2])
    print(json.dumps([seconds, [name for name in sys.modules if not name.startswith("_")]]), flush=True)
    os._exit(0)

SupervisedModule.training_step = first_step
sys.argv = ["tutelage", "distill", f"paths.outputs={sys.argv[1]}", "callbacks.progress=null"]
main()
"""

IMPORTS = """
import contextlib, importlib, json, os, sys

for name in json.load(sys.stdin):
    with contextlib.suppress(Exception):  # names that modules gave themselves
        importlib.import_module(name)
print(json.dumps([sum(os.times()[:2]), []]))
"""


def run(code: str, source: str, text: str = "") -> tuple[float, list[str]]:
    """Returns the CPU seconds that the code says, and the modules that it has imported."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, folder]
        ran = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, cwd=folder, check=True
        )
    seconds, modules = json.loads(ran.stdout.splitlines()[-1])
    return seconds, modules


def beyond_imports(source: str, count: int) -> None:
    """Prints what the job takes beyond its imports."""
    rows = []
    for _ in range(count):
        whole, modules = run(JOB, source)
        rows.append((whole, run(IMPORTS, source, json.dumps(modules))[0]))
    each = sorted(whole - imports for whole, imports in rows)
    whole, imports = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"first step {whole:.2f} s, imports {imports:.2f} s; difference: median {statistics.median(each):.2f} s, "
        f"{each[0]:.2f} to {each[-1]:.2f} in {count} pairs"
    )


def main() -> None:
    """Measures and prints."""
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    if sys.argv[1] == "--imports":
        return beyond_imports(os.path.abspath(sys.argv[2]), count)
    before, after = map(os.path.abspath, sys.argv[1:3])
    pairs = [(run(JOB, before)[0], run(JOB, after)[0]) for _ in range(count)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = sorted(new / old for old, new in pairs)
    print(
        f"before {first:.2f} s, after {second:.2f} s; ratio: median {statistics.median(ratio):.3f}, "
        f"{ratio[0]:.3f} to {ratio[-1]:.3f} in {count} pairs"
    )


if __name__ == "__main__":
    main()
