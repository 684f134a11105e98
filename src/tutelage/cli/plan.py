"""``tutelage plan …``: says what ``distill`` would train, reuse and write with the same overrides, and does nothing."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Runs the verb, which composes configs itself: as a Hydra application it would make the folders of a run."""
    parser = argparse.ArgumentParser(
        prog="tutelage plan",
        description="Takes the overrides of `tutelage distill`; trains nothing and makes no folder. Multiply-adds are "
        "estimated: three forward passes for each example that is learned from, one for each network that teaches it.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="see `tutelage distill --help`")
    parser.add_argument("-m", "--multirun", action="store_true", help="a line for each job of a sweep, and their sum")
    parser.add_argument("--cache", action="store_true", help="what `tutelage cache` would do instead")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of configs of your own")
    chosen = parser.parse_intermixed_args(sys.argv[1:])

    from tutelage.pipeline.plan import plan_jobs
    from tutelage.runtime.status import terminal

    words = list(chosen.overrides)
    if chosen.config_dir is not None:
        words.append(f"hydra.searchpath=['file://{Path(chosen.config_dir).absolute()}']")
    console = terminal(sys.stdout)
    for part in plan_jobs(words, chosen.multirun, "cache" if chosen.cache else "distill").tables():
        console.print(part)
