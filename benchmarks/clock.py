"""CPU time of a call, which other work on the machine changes little."""

import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object], times: int) -> float:
    """Returns the CPU seconds of this process for one of ``times`` calls."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times
