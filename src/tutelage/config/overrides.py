"""Overrides as a user gives them, before Hydra reads them. Imports nothing heavy: every command begins here."""

import os
import re
from collections import Counter
from collections.abc import Sequence

_HOME = re.compile(r"""(?<=[=,\['"])~(?=/)""")


def repeated(words: Sequence[str]) -> str | None:
    """Returns a sentence about the first key that is given several times, of which only the last would be used."""
    given = [word for word in words if "=" in word and word[0] not in "-~" and not os.path.exists(word)]
    for key, times in Counter(word.lstrip("+").partition("=")[0] for word in given).items():
        if times > 1:
            return f"{key} is given {times} times; only the last would be used"
    return None


def as_hydra_takes_them(words: Sequence[str]) -> list[str]:
    """Returns the overrides in Hydra's own form.

    A shell expands ~ only at the beginning of a word; and Hydra chooses nothing of a group by ``~group``.
    """
    at_home = [_HOME.sub(os.path.expanduser("~"), word) if "=" in word else word for word in words]
    return ["~logger" if word == "logger=null" else word for word in at_home]
