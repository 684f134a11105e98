"""The offline runs of Weights & Biases in a folder, read back."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7  # LevelDB's log format, after W&B's own header of 7 bytes


@dataclass
class OfflineRun:
    """One ``.wandb`` file: its id, group, stage, and name → step → value."""

    id: str = ""
    group: str = ""
    job_type: str = ""
    config: set[str] = field(default_factory=set)
    history: list[dict[str, float]] = field(default_factory=list)
    exit_code: int | None = None


def offline_runs(folder: Path) -> dict[str, list[OfflineRun]]:
    """Stage → the runs below ``folder``."""
    found: dict[str, list[OfflineRun]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run = _read(path)
        found.setdefault(run.job_type, []).append(run)
    return found


def _read(path: Path) -> OfflineRun:
    run = OfflineRun()
    for content in _records(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "run":
            run.id, run.group, run.job_type = record.run.run_id, record.run.run_group, record.run.job_type
            run.config |= {one.key for one in record.run.config.update}
        elif record.WhichOneof("record_type") == "config":
            run.config |= {one.key for one in record.config.update}
        elif record.WhichOneof("record_type") == "history":
            row = {one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
            run.history.append(row)
        elif record.WhichOneof("record_type") == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(content: bytes):
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        if (left := _BLOCK - at % _BLOCK) < _HEADER:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # whole, or the last part of one
            yield parts
            parts = b""
