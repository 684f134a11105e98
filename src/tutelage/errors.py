"""Errors that a user can act on."""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any

import yaml
from hydra.errors import CompactHydraException, InstantiationException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

# Hydra's plugins that an extra of ours brings.
_EXTRAS = {
    "launcher/joblib": "sweep",
    "sweeper/optuna": "sweep",
    "launcher/submitit_local": "slurm",
    "launcher/submitit_slurm": "slurm",
    "launcher/ray": "ray",
}

_NO_LOCKS = "the file system has no locks (flock); choose other folders for paths.outputs and paths.artifacts"
# Faults of a disk or a folder, not of this program.
_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENOTDIR: "a part of this path is a file; a folder is needed",
    errno.EEXIST: "a file of this name exists already",
    errno.EISDIR: "expected a file, found a folder",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ELOOP: "its symbolic links form a loop",
    errno.EIO: "the disk failed to read or write",
    errno.ESTALE: "the file system was remounted meanwhile",
}


class TutelageError(CompactHydraException, ValueError):
    """Bad input: says which key, file or index, what was expected and what was found.

    Hydra prints it without a traceback (``HYDRA_FULL_ERROR=1`` brings that back) and exits with 1.

    Examples:
        >>> import torch, tutelage as tt
        >>> try:
        ...     tt.Term(torch.nn.CrossEntropyLoss(), {"input": "logits", "target": "batch.label"})
        ... except tt.TutelageError as error:
        ...     print(error)
        a term reads '<source>.<signal>', such as 'student.logits'; found 'logits'
    """


_MOST_NAMES = 100  # of which all are listed; a vocabulary has thousands


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for a misspelt ``name``: the near matches among ``known``, else all of them or the first."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = names if len(names) <= _MOST_NAMES else [*names[:20], f"… ({len(names)} in all)"]
    return f"known: {', '.join(shown) or 'none'}"


_BY_NAME = {  # groups that have members by name, each with a _target_, and how one is given on the command line
    "loss": "'+loss.terms.mine={_target_: tutelage.objective.Term, loss: {_target_: my_pkg.MyLoss}, "
    "inputs: {student: student.logits}, targets: {teacher: teacher.logits}, weight: 0.5}'",
    "callbacks": "'+callbacks.mine={_target_: my_pkg.MyCallback}'",
    "logger": "'+logger.mine={_target_: my_pkg.MyLogger}'",
    "scheduler": "'scheduler.scheduler={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 10}'",
    "optimizer": "optimizer._target_=torch.optim.SGD (with ~optimizer.fused where it has no such argument)",
}


def own_class(group: str) -> str:
    """Returns how to give a class of one's own to a group that takes no class itself."""
    example = f"as in {_BY_NAME[group]}, or " if group in _BY_NAME else ""
    return f"a class of your own is given {example}by a yaml of yours and --config-dir (docs/extend.md)"


_OURS = os.path.dirname(__file__)
_NOT_USERS = (  # ours, Python's and libraries', and code without a file
    _OURS, os.path.join(os.path.dirname(_OURS), "hydra_plugins"), os.path.dirname(os.__file__), "site-packages", "<",
)  # fmt: skip
_FRAME = re.compile(r'File "(.+?)", line (\d+), in (\S+)')
_FROM_WORKER = "Original Traceback (most recent call last):"  # torch's, of a process that loads data


def tried_out(error: Exception) -> str | None:
    """Describes an error of trying out a network or a loss; None if it is not the user's to mend.

    It is where their code raised it, with file and line, or where torch says that shapes or arguments do not fit.
    """
    if (own := in_own_code(error)) is not None:
        return own
    return str(error) if isinstance(error, RuntimeError | TypeError | ValueError) else None


def in_own_code(error: BaseException) -> str | None:
    """Describes an error that came out of the user's code, or out of what it called; None of others.

    Returns:
        Such as ``ZeroDivisionError: division by zero (/home/me/mine.py, line 12, in on_train_epoch_end)``.
    """
    text = str(error)
    if _FROM_WORKER in text:
        found, text = _FRAME.findall(text), text.strip().splitlines()[-1]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        found = [(frame.filename, str(frame.lineno), frame.name) for frame in frames]
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    own = [one for one in found if not any(part in one[0] for part in _NOT_USERS)]
    if not own:
        return None
    file, line, name = own[-1]
    return f"{text} ({file}, line {line}, in {name})"


def storage_fault(error: BaseException) -> str | None:
    """Describes the disk or folder fault behind an error, with its path; None for errors of another kind."""
    if not isinstance(error, OSError):
        return None
    place = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOENT and _made_a_folder(error):  # as below /proc, which is not writable
        return f"{place}the folder can't be created here"
    if error.errno == errno.ENOENT and error.filename and os.path.islink(error.filename):
        return f"{place}a link to what is not there; delete it"
    return f"{place}{_STORAGE[error.errno]}" if error.errno in _STORAGE else None


def _made_a_folder(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name in ("mkdir", "makedirs")


def is_users(error: BaseException) -> bool:
    """Checks whether the user can fix the error; then its message is shown without a traceback."""
    own = (CompactHydraException, OmegaConfBaseException, yaml.YAMLError)
    return (
        isinstance(error, own)
        or _is_no_choice(error)
        or storage_fault(error) is not None
        or _is_lightnings_refusal(error)
        or _is_lost_process(error)
        or _is_missing_slurm(error)
        or _is_no_letter_of_file_names(error)
        or _is_no_number_of_jobs(error)
    )


# Of joblib, Python, submitit and Ray, known by name because not all of them are installed.
_LOST = {"TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError", "WorkerCrashedError"}


def _is_lost_process(error: BaseException) -> bool:
    """Checks for what launchers raise when a process that ran a job was killed."""
    return any(kind.__name__ in _LOST for kind in type(error).__mro__)


def _is_missing_slurm(error: BaseException) -> bool:
    """Checks for what submitit says where there is no SLURM."""
    return isinstance(error, RuntimeError) and str(error).startswith('Could not detect "srun"')


def _is_no_number_of_jobs(error: BaseException) -> bool:
    """Checks for what joblib says of ``hydra.launcher.n_jobs=0``."""
    return isinstance(error, ValueError) and str(error).startswith("n_jobs == 0")


def _is_no_letter_of_file_names(error: BaseException) -> bool:
    """Checks for a path with letters that the locale has none of."""
    return isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8"


def _is_no_choice(error: BaseException) -> bool:
    """Checks for what Hydra says of a group that is given null, a number or a list of lists."""
    said = str(error).startswith("Config group override must be")
    return said and isinstance(error, ValueError) and not isinstance(error, TutelageError)


def _is_lightnings_refusal(error: BaseException) -> bool:
    """Checks for Lightning's MisconfigurationException by name, because Lightning is slow to import."""
    return type(error).__name__ == "MisconfigurationException"


def _of_a_resolver(error: BaseException) -> str | None:
    """Returns what is wrong with a value that our yamls compute, without OmegaConf's words around it."""
    cause: BaseException | None = error
    while isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    return str(cause) if cause is not error and isinstance(cause, TutelageError) else None


def _with_advice(error: BaseException, message: str) -> str | None:
    """Returns the message of an error that is of one kind, with what helps; None of others."""
    if isinstance(error, yaml.YAMLError):
        advice = "; YAML indents with spaces, never with tabs" if "'\\t'" in message else ""
        return " ".join(message.split()) + advice
    if _is_lightnings_refusal(error):
        return f"trainer or callbacks were rejected by Lightning: {' '.join(message.split())}"
    if _is_lost_process(error):
        line = (message.strip() or type(error).__name__).splitlines()[0]
        codes = re.search(r"exit codes of the workers are (.+)", message)  # of joblib; (-9) is SIGKILL
        guess = "" if codes and "(-9)" not in codes[1] else ", for want of memory perhaps"
        told = f" (exit codes of workers: {codes[1].strip()})" if codes else ""
        return f"a process of the launcher that ran a job was killed{guess}: {line}{told}"
    if _is_missing_slurm(error):
        return "launcher=submitit_slurm: there is no SLURM here (no srun); launcher=submitit_local and joblib need none"
    if _is_no_number_of_jobs(error):
        return "hydra.launcher.n_jobs=0: expected a number of jobs at once, or -1 for one per core"
    if _is_no_letter_of_file_names(error):
        return f"{message}: the locale has no such letter for names of files; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    if _is_no_choice(error):
        return f"{message}: a group of the config, such as data=… or callbacks=…, takes the name of one of its choices"
    return None


_OF_IMAGES = ("data.augment", "data.mix", "data.inputs", "data.derived", "data.mean", "data.std")


def _of_a_key(message: str, key: str, node: Any) -> str:
    """Returns what Hydra says of a key that a section does not have, with what helps."""
    path = message.partition("'")[2].partition("'")[0]
    if path in _OF_IMAGES:
        return f"{path} is a key of data of images (docs/data.md); {node.get('_target_')} has none of this name"
    hint = own_class(path.partition(".")[0]) if path.endswith("._target_") else nearest(key, node)
    return f"{message}\n{key!r}: {hint}"


def _of_another_kind(override: str, cause: str) -> str:
    """Returns what is wrong with an override whose value is not of the kind that its key has."""
    if "Cannot merge" in cause:  # a list with a section; OmegaConf says it in this order in both cases
        kinds = ["a section with keys of its own", "a list"]
        given = override.partition("=")[2].startswith("[")
        return f"{override}: expected {kinds[not given]}, found {kinds[given]}"
    return f"{override}: {cause.splitlines()[0]}" if cause else override


def _of_an_override(message: str, cause: BaseException | None) -> str | None:
    """Returns what is wrong with the key or the value of an override; None if Hydra says nothing of one."""
    node, key = getattr(cause, "parent_node", None), str(getattr(cause, "key", "") or "")
    if "Could not override" in message and node is not None and key:
        return _of_a_key(message, key, node)
    merged = "Error merging override "
    return _of_another_kind(message.removeprefix(merged), str(cause)) if message.startswith(merged) else None


def explain(error: BaseException) -> str:
    """Returns the error's message, or its cause's where Hydra failed to build a part of the config.

    For a misspelt key or choice of the config, the nearest existing ones are added.
    """
    if (known := storage_fault(error) or _of_a_resolver(error)) is not None:
        return known
    message = str(error)
    if (worded := _with_advice(error, message)) is not None:
        return worded
    if not is_users(error):
        return in_own_code(error) or message
    if isinstance(error, OverrideParseException):
        problem = message.splitlines()[0]
        return f"{error.override}: {problem}; text with brackets, spaces or commas is quoted twice: 'key=\"…\"'"
    cause = error.__cause__
    if isinstance(error, InstantiationException) and cause is not None and "full_key: " in message:
        place = message.rpartition("full_key: ")[2]
        said = str(cause) if isinstance(cause, CompactHydraException) else in_own_code(cause) or str(cause)
        return said if said.startswith((f"{place}.", f"{place}:", f"{place} ")) else f"{place}: {said}"
    if (worded := _of_an_override(message, cause)) is not None:
        return worded
    for choice, extra in _EXTRAS.items():
        if f"'hydra/{choice}'" in message:
            return f"{message}\n{choice} needs an extra: pip install 'tutelage[{extra}]'"
    if (options := getattr(error, "options", None)) and (missing := getattr(error, "missing_cfg_file", None)):
        group, _, choice = str(missing).rpartition("/")
        shown = message.replace("\n\t_base", "")  # what the choices of a group share is none itself
        near = nearest(choice, (one for one in options if one != "_base"))
        return f"{shown}\n{choice!r}: {own_class(group.partition('@')[0]) if '.' in choice else near}"
    return message


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
