"""``tutelage status DIR…``: the state of the jobs below some folders, while they run and afterwards."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tutelage.errors import TutelageError
from tutelage.runtime.status import jobs, table, terminal


def main() -> None:
    """Prints the table and how many jobs are in each state.

    Raises:
        TutelageError: no job is there.
    """
    parser = argparse.ArgumentParser(prog="tutelage status", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], metavar="DIR")
    console = terminal(sys.stdout)
    for folder in parser.parse_args().folders:
        if not (found := list(jobs(folder))):
            raise TutelageError(f"no job in {folder}: there is no status.json below it")
        console.print(table(found, folder))
        console.print(", ".join(f"{n} {state}" for state, n in Counter(one.state for one in found).items()))
