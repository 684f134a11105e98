"""Time and memory of one file of a network, in a process that does nothing else.

``python -m tutelage.pipeline.timing FILE INPUTS THREADS [TRUSTED…]`` prints them as JSON. For an ONNX file PyTorch is
not imported: its memory is that of a service that runs the file.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tutelage.errors import TutelageError

BATCHES = (1, 64)
_LEAST, _MOST = 5, 500  # runs
_WARM = 3  # runs before

Arrays = Mapping[str, Any]
Answer = Callable[[Arrays], object]


def timed(file: Path, inputs: Mapping[int, Arrays], threads: int, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Measures a file in a fresh process.

    Args:
        file: ONNX, a program of torch.export, or weights in our format.
        inputs: size of a batch → its arrays by field, in the order of the file's arguments.
        threads: of the runtime.
        trusted: packages whose networks a file of weights may name.

    Returns:
        ``runtime``, its name and version; ``latency_ms``, by batch size the median of ``runs``; ``peak_bytes``, the
        most memory that the process had, libraries included, and ``libraries_bytes``, what it had before it loaded the
        file (None where the system does not say).

    Raises:
        TutelageError: the process fails.
    """
    with TemporaryDirectory() as work:
        place = Path(work) / "inputs.npz"
        np.savez(place, **{f"{size}.{name}": x for size, arrays in inputs.items() for name, x in arrays.items()})
        command = [sys.executable, "-m", "tutelage.pipeline.timing", str(file), str(place), str(threads), *trusted]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TutelageError(f"{file} can't be timed in a process of its own: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(file: str, inputs: str, threads: str, *trusted: str) -> None:
    load = {".onnx": _onnx, ".pt2": _program}.get(Path(file).suffix, _network)
    open_file, runtime = load(int(threads), trusted)
    before = _memory("VmRSS")
    answer = open_file(file)
    with np.load(inputs) as found:
        arrays = {key: found[key] for key in found.files}
    latency, runs = {}, {}
    for size in BATCHES:
        own = {key.partition(".")[2]: x for key, x in arrays.items() if key.startswith(f"{size}.")}
        latency[str(size)], runs[str(size)] = median_latency(partial(answer, own))
    document = {
        "runtime": runtime, "latency_ms": latency, "runs": runs, "peak_bytes": _memory("VmHWM"),
        "libraries_bytes": before,
    }  # fmt: skip
    print(json.dumps(document))


def median_latency(answer: Callable[[], object], seconds: float = 0.5) -> tuple[float, int]:
    """Times calls, after three that are not timed, in this process with the threads that it has.

    Args:
        answer: what is timed.
        seconds: that it is called for; at least 5 and at most 500 times.

    Returns:
        The median in milliseconds, and the number of calls.
    """
    for _ in range(_WARM):
        answer()
    taken: list[float] = []
    while len(taken) < _LEAST or (sum(taken) < seconds and len(taken) < _MOST):
        begun = time.perf_counter()
        answer()
        taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken), len(taken)


def _memory(name: str) -> int | None:
    """Returns a line of ``/proc/self/status`` in bytes; ``getrusage`` would count a parent's memory."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def _onnx(threads: int, trusted: Sequence[str]) -> tuple[Callable[[str], Answer], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def opened(file: str) -> Answer:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda arrays: session.run(None, arrays)

    return opened, f"onnxruntime {onnxruntime.__version__}"


def _program(threads: int, trusted: Sequence[str]) -> tuple[Callable[[str], Answer], str]:
    import torch

    torch.set_num_threads(threads)

    def opened(file: str) -> Answer:
        program = torch.export.load(file).module()
        return _without_gradients(lambda tensors: program(*tensors.values()))

    return opened, f"torch {torch.__version__}"


def _network(threads: int, trusted: Sequence[str]) -> tuple[Callable[[str], Answer], str]:
    import torch

    from tutelage.config.saved import network_of
    from tutelage.models.tapped import run

    torch.set_num_threads(threads)

    def opened(file: str) -> Answer:
        net = network_of(file, trusted)[0].eval()
        return _without_gradients(lambda tensors: run(net, dict(tensors)))

    return opened, f"torch {torch.__version__}"


def _without_gradients(answer: Answer) -> Answer:
    import torch

    def made(arrays: Arrays) -> object:
        with torch.inference_mode():
            return answer({name: torch.from_numpy(x) for name, x in arrays.items()})

    return made


if __name__ == "__main__":
    _main(*sys.argv[1:])
