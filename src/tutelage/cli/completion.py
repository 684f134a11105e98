"""Bash completion for ``tutelage <verb> …``: Hydra completes the overrides, this module the rest."""

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path

import yaml

from tutelage.cli.verbs import VERBS
from tutelage.config.paths import conf_dir

_INSTALL = """_tutelage_completion()
{
    local word="${COMP_WORDS[COMP_CWORD]}"
    local choices=$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" "${COMP_WORDS[0]}" -sc query=bash)
    COMPREPLY=($(compgen -o nospace -o default -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//[=@]}
complete -o nospace -o default -F _tutelage_completion tutelage"""


def complete(request: str) -> None:
    """Answers ``-sc install=bash``, ``-sc uninstall=bash`` and ``-sc query=bash`` (with the line in COMP_LINE)."""
    action, _, shell = request.partition("=")
    if shell != "bash" or action not in ("install", "uninstall", "query"):
        sys.exit(f"tutelage: completion is for bash: -sc install=bash; found {request!r}")
    if action == "install":
        print(_INSTALL)
    elif action == "uninstall":
        print("complete -r tutelage; unset -f _tutelage_completion")
    else:
        print(" ".join(query(os.environ.get("COMP_LINE", ""))))


def query(line: str) -> list[str]:
    """Returns the words that can complete ``line``."""
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        return list(VERBS)
    executable, verb = words[:2]
    composed = "distill" if verb == "plan" else verb
    if verb not in VERBS or not (Path(conf_dir()) / f"{composed}.yaml").is_file():  # bash goes on with names of files
        return []
    before, _, word = line.removeprefix(executable).split(verb, 1)[1].rpartition(" ")
    # Hydra completes group=choice, but neither the name nor the choice of a group@package.
    group, package, choice = re.fullmatch(r"(?:([\w/]+)(@[\w.]+)(?==))?(.*)", word).groups()  # type: ignore[union-attr]
    found = [one for one in _ask_hydra(composed, f"{executable}{before} {group or ''}{choice}") if "=_base" not in one]
    if package:
        return [answer.replace(f"{group}=", f"{group}{package}=", 1) for answer in found]
    known = _groups(composed)
    bare = {f"{key.partition('@')[0]}=" for key in known} - {f"{key}=" for key in known}  # such as model=
    # nor a group that has folders of further choices, such as loss=regression/output_mse
    others = [f"{key}=" for key in known if key.startswith(word) and f"{key}=" not in found]
    return [answer for answer in found if answer not in bare] + others


def _groups(verb: str) -> list[str]:
    """Returns the ``group`` and ``group@package`` keys in the defaults of a verb's config."""
    defaults = yaml.safe_load((Path(conf_dir()) / f"{verb}.yaml").read_text(encoding="utf-8"))["defaults"]
    return [key for entry in defaults if isinstance(entry, dict) for key in entry if not key.startswith("override ")]


def _ask_hydra(verb: str, line: str) -> list[str]:
    from tutelage.config import resolvers

    resolvers.register()
    os.environ["COMP_LINE"] = line
    sys.argv = [line.split()[0], "-sc", "query=bash"]
    with contextlib.redirect_stdout(io.StringIO()) as answer:
        importlib.import_module(f"tutelage.cli.{verb}").main()
    return answer.getvalue().split()
