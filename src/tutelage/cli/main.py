"""``tutelage <verb> [hydra overrides]``. Nothing heavy is imported before the verb's config is composed."""

import importlib
import logging
import os
import select
import signal
import sys
import traceback

from tutelage.cli.verbs import VERBS
from tutelage.config.overrides import as_hydra_takes_them, repeated

# Before torch is imported: on a shared machine spinning OpenMP threads lose a factor of 2 to 17. GNU's, which torch
# brings along, spin for some 20 µs, which is what a second thread needs to pay at small students' products.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

USAGE = """tutelage – knowledge distillation for research

usage: tutelage <verb> [overrides] [hydra flags]

verbs:
{verbs}

examples:
  tutelage distill                                    embedded digits, well under a minute
  tutelage distill data=mnist model@teacher=cnn model@student=dense loss.temperature=4
  tutelage distill -m loss.temperature=1,4,10 loss.alpha=.5,.9 'seed=range(0,5)'
  tutelage evaluate checkpoint=outputs/distill/…/checkpoints/best.safetensors

`tutelage <verb> --help` lists a verb's config groups and keys; `--cfg job` prints its config.
Completion: eval "$(tutelage -sc install=bash)\""""


_WITHOUT_HYDRA = ("plan", "status", "report")
_MODES = {"--multirun": ("-m", "--multirun"), "--cfg": ("-c", "--cfg"), "--info": ("-i", "--info")}
_WITH_VALUE = (
    "-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun",
)  # fmt: skip


def usage() -> str:
    """Returns the text of ``tutelage`` without a verb."""
    return USAGE.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items()))


def main() -> None:
    """The console script: dispatches to a verb, and turns errors into messages and exit codes.

    If the reader of its output has closed the pipe (``… | head -1``), it exits with 141, as other programs do.
    """
    from tutelage.runtime.text import in_its_letters

    for name in ("stdout", "stderr"):  # closed by the caller, as some daemons do
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        in_its_letters(stream)
    logging.raiseExceptions = False  # else Python prints a traceback about the closed pipe
    try:
        try:
            _dispatch(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # outside of a training, which saves its state
        print("tutelage: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(128 + signal.SIGPIPE)


def _dispatch(arguments: list[str]) -> None:
    if arguments[:1] == ["-sc"] or arguments[:1] == ["--shell-completion"]:
        from tutelage.cli.completion import complete

        return complete("".join(arguments[1:2]))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if arguments else 2)
    verb = arguments[0]
    if verb not in VERBS:
        from tutelage.errors import nearest

        sys.exit(f"tutelage: no verb {verb!r}; {nearest(verb, VERBS)}")
    if problem := repeated(arguments[1:]):
        sys.exit(f"tutelage {verb}: {problem}")
    if empty := next((word for word in arguments if word in ("hydra.run.dir=", "hydra.sweep.dir=")), None):
        sys.exit(f"tutelage {verb}: {empty} names no folder")
    given = as_hydra_takes_them(arguments[1:])
    if verb in _WITHOUT_HYDRA:
        sys.argv = [f"{sys.argv[0]} {verb}", *given]
    else:
        overrides, flags = _sorted(given)
        kinds = {kind for word in flags for kind, names in _MODES.items() if word.partition("=")[0] in names}
        if len(kinds) > 1:
            sys.exit(f"tutelage {verb}: {' and '.join(sorted(kinds))} can't be combined: --cfg and --info show one job")
        sys.argv = [f"{sys.argv[0]} {verb}", *overrides, *flags]
    run(verb)


def _sorted(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns overrides and Hydra's flags apart: Hydra takes no override between two flags."""
    overrides: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_value = before in _WITH_VALUE or (before in ("-i", "--info") and "=" not in word)
        (flags if word.startswith("-") or is_value else overrides).append(word)
    return overrides, flags


def run(verb: str) -> None:
    """Runs a verb under Hydra.

    Hydra is told to let exceptions through, so that a user's mistake becomes one message and a bug a full traceback.
    ``HYDRA_FULL_ERROR=1`` in the user's environment gives the traceback in both cases.
    """
    from tutelage.compat.hydra import compose_once, compose_quickly
    from tutelage.config import resolvers
    from tutelage.errors import explain, in_own_code, is_users
    from tutelage.pipeline import sweep
    from tutelage.runtime import masking, rendezvous

    resolvers.register()
    compose_quickly()
    compose_once()
    masking.mask_logs()
    whole = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        rendezvous.receive_config()
        importlib.import_module(f"tutelage.cli.{verb}").main()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        written = sweep.multirun.traceback_file is not None and in_own_code(error) is not None
        if whole or not (is_users(error) or written):
            print(_shown(traceback.format_exc()), end="", file=sys.stderr)
        print(sweep.failures(), end="", file=sys.stderr)
        sys.exit(_shown(f"tutelage {verb}: {explain(error) if is_users(error) else unexpected()}"))


def _nobody_reads() -> bool:
    """Checks whether a broken pipe is that of this program's output."""
    try:
        output = select.poll()
        output.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in output.poll(0))
    except (OSError, ValueError):
        return False


def unexpected() -> str:
    """Returns the message for an unforeseen exception, with the place of its traceback.

    One that came out of the user's own code is described by its line there.
    """
    from tutelage.errors import in_own_code
    from tutelage.pipeline import sweep

    error = sys.exc_info()[1]
    where = f" ({sweep.multirun.traceback_file} has its traceback)" if sweep.multirun.traceback_file else ""
    if error is not None and (own := in_own_code(error)) is not None:
        return f"an error in code of your own: {own}{where}"
    return f"this is a bug in Tutelage: {type(error).__name__}: {error}{where}"


def _shown(text: str) -> str:
    """Returns text safe for the terminal: file names and values may contain secrets or escape sequences."""
    from tutelage.runtime.masking import hide
    from tutelage.runtime.text import printable

    return printable(hide(text))
