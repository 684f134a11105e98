"""Section "provenance": command, versions, data and artifacts of the runs, and what is missing."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tutelage.report.cells import Sweep, value_of
from tutelage.report.document import Block, Section, Table, Text, plural, text
from tutelage.report.runs import Run

_MOST = 200  # rows of a table on the page


def provenance(sweep: Sweep, damaged: Mapping[Path, str]) -> Section:
    """Returns the section: commands, versions, digests, failures, missing cells, and ``damaged`` predictions."""
    tables = [_commands(sweep), _versions(sweep), *_digests(sweep), _runs(sweep)]
    blocks: list[Block] = [*_missing(sweep), *_unverified(sweep, damaged), *tables]
    return Section("provenance", "Provenance", blocks)


def _unverified(sweep: Sweep, damaged: Mapping[Path, str]) -> Iterable[Block]:
    if damaged:
        rows = [[str(folder), why] for folder, why in sorted(damaged.items())]
        columns = dict.fromkeys(["folder", "why"], text)
        yield Table("damaged", "Damaged: these networks' predictions are not shown", columns, rows, shown=_MOST)
    if bare := sum(not run.verified for run in sweep.runs):
        yield Text(f"{plural(bare, 'run')} without manifest.json: their files cannot be verified.")


def _missing(sweep: Sweep) -> Iterable[Block]:
    if sweep.failed:
        rows = [[str(run.folder), run.seed, run.state, run.problem] for run in sweep.failed]
        columns = dict.fromkeys(["folder", "seed", "state", "why"], text)
        yield Table("failed", f"Without figures: {plural(len(rows), 'run')}", columns, rows, shown=_MOST)
    if sweep.missing:
        columns = {"cell": text, "seed": text}
        caption = f"Without figures: {plural(len(sweep.missing), 'pair')} of cell and seed"
        yield Table("missing", caption, columns, [list(one) for one in sweep.missing], shown=50)
    if sweep.never:
        yield Table("never", f"Never tried: {plural(len(sweep.never), 'combination')} of these values", {"cell": text},
                    [[name] for name in sweep.never], shown=50)  # fmt: skip
    if sweep.repeated:
        rows = [[str(run.folder), run.seed, run.ended] for run in sweep.repeated]
        columns = dict.fromkeys(["folder", "seed", "ended"], text)
        yield Table("repeated", "Left out: a later run has the same cell and seed", columns, rows, shown=50)
    if not (sweep.failed or sweep.missing or sweep.never):
        yield Text("Nothing failed and nothing is missing: every cell has every seed.")


def _commands(sweep: Sweep) -> Table:
    """Returns a table of distinct command lines with their numbers of runs."""
    counts = Counter(command(run) for run in [*sweep.runs, *sweep.failed] if run.provenance)
    rows = [[line, count] for line, count in counts.most_common()]
    return Table("commands", "Command lines", {"command": text, "runs": text}, rows, shown=20)


def command(run: Run) -> str:
    """Returns the command line, quoted to be pasted into a shell."""
    typed = [str(word) for word in run.provenance.get("command") or []]
    verb = typed[0].rpartition(" ")[2] if typed and " " in typed[0] else "distill"
    return " ".join(["tutelage", verb, *map(shlex.quote, typed[1:])])


def _versions(sweep: Sweep) -> Table:
    """Returns a table of versions and machines; several rows of a name show a mixture."""
    counts: Counter[tuple[str, str]] = Counter()
    for run in sweep.runs:
        versions = {**(run.provenance.get("versions") or {})}
        versions |= {name: run.provenance.get(name) for name in ("python", "machine", "commit")}
        counts.update((name, str(value)) for name, value in versions.items() if value)
    rows = [[name, value, count] for (name, value), count in sorted(counts.items())]
    return Table("versions", "Versions and machines", dict.fromkeys(["what", "value", "runs"], text), rows)


def _digests(sweep: Sweep) -> Iterable[Table]:
    """Yields a table of artifacts by digest, and of the data's content."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for run in sweep.runs:
        for role, entry in run.artifacts.items():
            if role == "student":
                continue
            recipe = entry.get("recipe") or {}
            digest = str(entry.get("folder", "")).rstrip("/").rpartition("/")[2]
            counts[role, digest, str(recipe.get("seed", "")), str(recipe.get("content", ""))] += 1
    rows = [[*key, count] for key, count in counts.items()]
    columns = dict.fromkeys(["role", "digest of its recipe", "seed", "SHA-256 of the data", "runs"], text)
    yield Table("digests", "Artifacts: what was made once and shared", columns, rows, shown=50, folded=len(rows) > 12)


def _runs(sweep: Sweep) -> Table:
    """Returns a table of every run with metrics."""
    rows = []
    for cell in sweep.cells:
        for seed, run in cell.runs.items():
            file = run.folder / "config.digest"
            digest = file.read_text().strip() if file.is_file() else None
            values = [str(value_of(run, key)) for key in sweep.keys]
            rows.append([str(run.folder), seed, *values, digest, run.ended])
    columns = dict.fromkeys(["folder", "seed", *sweep.keys, "config's digest", "ended"], text)
    return Table("runs", "Every run with figures", columns, rows, shown=_MOST, folded=True)
