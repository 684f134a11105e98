"""CPU seconds (user + system) of the digits job from the start of its process to its first step, of two source trees.

    python benchmarks/startup.py BEFORE/src AFTER/src [PAIRS]

Runs of the two are interleaved; the ratio of each pair is what counts.
"""

import os
import statistics
import subprocess
import sys
import tempfile

JOB = """
import os, sys
from tutelage.cli.main import main
from tutelage.training.module import SupervisedModule

def first_step(self, *arguments):
    print(sum(os.times()[:2]), flush=True)
    os._exit(0)

SupervisedModule.training_step = first_step
sys.argv = ["tutelage", "distill", f"paths.outputs={sys.argv[1]}", "callbacks.progress=null"]
main()
"""


def seconds(source: str) -> float:
    """Returns the CPU seconds to the first step of the teacher's training, with an empty folder of artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", JOB, folder]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, check=True)
    return float(ran.stdout.split()[-1])


def main() -> None:
    before, after = map(os.path.abspath, sys.argv[1:3])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    pairs = [(seconds(before), seconds(after)) for _ in range(count)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = sorted(new / old for old, new in pairs)
    print(
        f"before {first:.2f} s, after {second:.2f} s; ratio: median {statistics.median(ratio):.3f}, "
        f"{ratio[0]:.3f} to {ratio[-1]:.3f} in {count} pairs"
    )


if __name__ == "__main__":
    main()
