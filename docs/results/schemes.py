"""Table of several schemes over seeds, and the picture of them.

    python docs/results/schemes.py FOLDER …          # rows, from folders that hold runs of one scheme each
    python docs/results/schemes.py --picture docs/schemes.svg

A row is a folder: its name, accuracy on test of the student alone and of the taught one, last weights, and the gain
paired by seed with its 95 % interval.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from tutelage.runtime.files import write_atomically

HEAD = "| scheme | seeds | alone | taught | its peers | gain (95 %) | gain of each seed |\n|" + "---|" * 7
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 10: 2.262}  # of Student's t, by the number of seeds

_WIDTH, _HEIGHT = 290, 190  # of a panel
_STYLE = (
    ".b{fill:#eef2ff;stroke:#3f51b5;stroke-width:1.5}.o{fill:#fff7ed;stroke:#c2691b;stroke-width:1.5}"
    ".f{fill:#eee;stroke:#777;stroke-width:1.5}.l{stroke:#555;stroke-width:1.5;fill:none;marker-end:url(#a)}"
    ".d{stroke-dasharray:5 4}.s{font-size:12px;fill:#555}text{fill:#222;text-anchor:middle}"
)
# panel: title, boxes (class, x, y, text), arrows (x, y, x, y, dashed), note
Panel = tuple[str, list[tuple[str, int, int, str]], list[tuple[int, int, int, int, bool]], str]
PANELS: list[Panel] = [
    (
        "Peers (DML): online/dml",
        [("b", 30, 60, "student"), ("b", 180, 60, "peer")],
        [(110, 70, 180, 70, True), (180, 85, 110, 85, True)],
        "each learns from the other's logits",
    ),
    (
        "One target (KDCL): online/kdcl",
        [("b", 30, 100, "student"), ("b", 180, 100, "peer"), ("o", 105, 35, "target")],
        [(70, 100, 115, 69, False), (220, 100, 175, 69, False), (105, 55, 55, 98, True), (185, 55, 235, 98, True)],
        "made of all logits by a rule, teaches all",
    ),
    (
        "Stale peers: online/codistillation",
        [("b", 30, 45, "student"), ("b", 180, 45, "peer"), ("f", 30, 105, "its copy"), ("f", 180, 105, "its copy")],
        [(110, 118, 180, 68, True), (180, 118, 110, 68, True), (70, 77, 70, 103, False), (220, 77, 220, 103, False)],
        "copied every n steps; a copy teaches the other",
    ),
    (
        "Branches (ONE): online/one",
        [
            ("b", 15, 80, "trunk"), ("b", 110, 35, "branch 1"), ("f", 110, 80, "branch 2"),
            ("f", 110, 125, "branch 3"), ("o", 205, 80, "gate"),
        ],
        [(95, 92, 110, 55, False), (95, 96, 110, 96, False), (95, 100, 110, 137, False), (190, 51, 212, 79, False),
         (190, 96, 205, 96, False), (190, 141, 212, 113, False), (245, 79, 190, 42, True)],
        "the ensemble teaches; branch 1 is written",
    ),
    (
        "Exits (BYOT): online/byot",
        [
            ("b", 15, 105, "stage 1"), ("b", 105, 105, "stage 2"), ("b", 195, 105, "stage 3"),
            ("f", 15, 45, "exit 1"), ("f", 105, 45, "exit 2"), ("o", 195, 45, "logits"),
        ],
        [(95, 121, 105, 121, False), (185, 121, 195, 121, False), (55, 105, 55, 78, False), (145, 105, 145, 78, False),
         (235, 105, 235, 78, False), (195, 61, 186, 61, True), (205, 45, 80, 44, True)],
        "the last one teaches; the stages are written",
    ),
    (
        "A discriminator: adversarial/…",
        [("f", 20, 45, "teacher"), ("b", 20, 110, "student"), ("o", 180, 78, "teacher's?")],
        [(100, 61, 178, 86, False), (100, 126, 178, 102, False), (190, 111, 102, 138, True)],
        "gradient reversed: the student misleads it",
    ),
]  # fmt: skip


def row(folder: Path) -> str:
    """Returns the row of a folder with runs."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.rglob("metrics.json"))]
    alone, taught = ([run[role]["last"]["test"]["accuracy"] for run in runs] for role in ("control", "student"))
    peers = [entry["last"]["test"]["accuracy"] for run in runs for entry in run.get("peers", {}).values()]
    return line(folder.name, alone, taught, peers)


def line(name: str, alone: Sequence[float], taught: Sequence[float], peers: Sequence[float]) -> str:
    """Returns a row of accuracies by seed."""
    gains = [100 * (own - base) for own, base in zip(taught, alone, strict=True)]
    half = T95[len(gains)] * stdev(gains) / len(gains) ** 0.5
    each = ", ".join(f"{gain:+.2f}" for gain in gains)
    cells = [spread(alone), spread(taught), spread(peers) if peers else "–"]
    interval = f"{mean(gains):+.2f} ({mean(gains) - half:+.2f} to {mean(gains) + half:+.2f})"
    return f"| {name} | {len(gains)} | {' | '.join(cells)} | {interval} | {each} |"


def spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation in percent."""
    return f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f}"


def picture() -> str:
    """Returns the picture of all schemes as SVG."""
    parts = []
    for number, panel in enumerate(PANELS):
        x, y = number % 3 * _WIDTH, number // 3 * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_drawn(panel)}</g>')
    width, height = 3 * _WIDTH, 2 * _HEIGHT
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="14" role="img" aria-label="Six schemes of learning together">\n<style>{_STYLE}</style>\n'
        f'{arrow}\n<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _drawn(panel: Panel) -> str:
    title, boxes, arrows, note = panel
    drawn = [f'<text x="{_WIDTH // 2 - 10}" y="22" font-weight="bold">{title}</text>']
    for kind, x, y, text in boxes:
        drawn.append(f'<rect class="{kind}" x="{x}" y="{y}" width="80" height="32" rx="6"/>')
        drawn.append(f'<text x="{x + 40}" y="{y + 21}">{text}</text>')
    drawn += [
        f'<path class="{"l d" if dashed else "l"}" d="M{x0} {y0}L{x1} {y1}"/>' for x0, y0, x1, y1, dashed in arrows
    ]
    return "".join([*drawn, f'<text class="s" x="{_WIDTH // 2 - 10}" y="176">{note}</text>'])


def main(arguments: Sequence[str]) -> None:
    """Prints the table of folders, or writes the picture."""
    if arguments[:1] == ["--picture"]:
        write_atomically(Path(arguments[1]), picture().encode())
        return
    print(HEAD)
    for folder in arguments:
        print(row(Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
