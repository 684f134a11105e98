"""Private APIs of joblib."""

import sys

WORKER = "LokyProcess"  # how the names of its processes begin


def worker_pids() -> list[int]:
    """Returns the process ids of joblib's workers; none where it runs none. It has no public list of them."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = getattr(loky, "_executor", None)
    return [*(getattr(executor, "_processes", None) or {})]
