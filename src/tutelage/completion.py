"""Bash completion for ``tutelage <verb> …``: Hydra completes a verb's overrides, we complete the verb."""

import importlib
import os
import sys

from tutelage.cli import VERBS

_INSTALL = """_tutelage_completion()
{
    local word="${COMP_WORDS[COMP_CWORD]}"
    local choices=$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" "${COMP_WORDS[0]}" -sc query=bash)
    COMPREPLY=($(compgen -o nospace -o default -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
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
        query(os.environ["COMP_LINE"])


def query(line: str) -> None:
    """Prints what could stand at the end of ``line``."""
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        print(" ".join(VERBS))
        return
    verb = words[1]
    if verb not in VERBS:
        return
    from tutelage import resolvers

    resolvers.register()
    executable = words[0]
    os.environ["COMP_LINE"] = executable + line.removeprefix(executable).split(verb, 1)[1]
    sys.argv = [executable, "-sc", "query=bash"]
    importlib.import_module(f"tutelage.{verb}").main()
