"""``tutelage report DIR…``: compares finished runs on one page, in markdown and in CSV."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Runs the verb, whose arguments are folders, not overrides."""
    parser = argparse.ArgumentParser(
        prog="tutelage report",
        description="Reads every run of `tutelage distill` below the folders; writes index.html, report.md and CSV.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run's folder, or one above several")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: DIR/report)")
    parser.add_argument(
        "--weights", choices=("last", "best", "average"), default="last",
        help="which weights to report: last, each network's best epoch on validation, or its average of the best ones "
        "(callbacks=average_best; default: last)",
    )  # fmt: skip
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE",
        help="a package whose data classes may be used to show images (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--no-images", dest="images", action="store_false",
        help="leave out the test images (faster: neither the data nor PyTorch are loaded)",
    )  # fmt: skip
    chosen = parser.parse_args(sys.argv[1:])

    from tutelage.report.runs import read_runs

    runs = read_runs(chosen.folders)  # before the slow imports, so that a misspelt folder is reported at once

    from tutelage.report.write import write_report

    print(
        write_report(runs, chosen.output or chosen.folders[0] / "report", chosen.weights, chosen.trust, chosen.images)
    )
