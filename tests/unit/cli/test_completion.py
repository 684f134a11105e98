"""Completion, asked as bash asks, and once in a real interactive bash with a TAB key."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import environment

from tutelage.cli.completion import query
from tutelage.cli.main import VERBS


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """``query`` hands over to Hydra, which reads these two."""
    monkeypatch.setattr(sys, "argv", ["tutelage"])
    monkeypatch.setenv("COMP_LINE", "")


@pytest.mark.parametrize(
    ("line", "among", "not_among"),
    [
        ("tutelage ", {"distill", "evaluate", "cache"}, set()),
        ("tutelage dis", {"distill"}, set()),
        ("tutelage foo ", set(), {"distill"}),
        ("tutelage distill ", {"loss=", "data=", "model@teacher=", "model@student=", "seed=", "loss."}, {"model="}),
        ("tutelage distill lo", {"loss=", "loss.", "logger="}, {"data="}),
        ("tutelage distill loss=", {"loss=soft_target", "loss=hard", "loss=fitnet"}, {"loss="}),
        ("tutelage distill data=", {"data=digits", "data=mnist"}, {"data=_base"}),
        ("tutelage distill loss=so", {"loss=soft_target"}, {"loss=hard"}),
        ("tutelage distill loss.al", {"loss.alpha="}, set()),
        ("tutelage distill trainer.max", {"trainer.max_epochs="}, set()),
        ("tutelage distill mod", {"model@teacher=", "model@student="}, {"model="}),
        ("tutelage distill opt", {"optimizer=", "optimizer@stages.teacher.optimizer="}, set()),
        ("tutelage distill model@student=wrn_16", {"model@student=wrn_16_1", "model@student=wrn_16_2"}, set()),
        ("tutelage distill seed=1 model@teacher=cn", {"model@teacher=cnn"}, set()),
        ("tutelage distill -m optimizer=", {"optimizer=adam", "optimizer=sgd"}, set()),
        ("/opt/distill/bin/tutelage distill see", {"seed="}, set()),
        ("tutelage plan ", {"loss=", "model@teacher=", "seed="}, {"model="}),
        ("tutelage plan -m optimizer=", {"optimizer=adam"}, set()),
        ("tutelage evaluate che", {"checkpoint="}, set()),
    ],
)  # fmt: skip
def test_answers(line, among, not_among):
    found = set(query(line))
    assert among <= found
    assert not not_among & found
    last = line.rpartition(" ")[2]
    assert all(answer.startswith(last) for answer in found if "." not in last and answer not in VERBS)


def tutelage(*arguments, line=None):
    env = environment() | ({} if line is None else {"COMP_LINE": line})
    command = [sys.executable, "-m", "tutelage", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)


@pytest.mark.parametrize("request_", [[], ["install=fish"], ["query=zsh"], ["remove=bash"]])
def test_what_is_no_request_is_refused(request_):
    done = tutelage("-sc", *request_)
    assert done.returncode == 1
    assert "completion is for bash: -sc install=bash" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_query_without_a_line_offers_verbs():
    assert "distill" in tutelage("-sc", "query=bash").stdout


def bash(script):
    bin_ = str(Path(sys.executable).parent)
    env = environment(PATH=f"{bin_}:{os.environ['PATH']}")
    return subprocess.run(["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, timeout=1200)


ASK = """
eval "$(tutelage -sc install=bash)"
COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({line}{empty}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_tutelage_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tutelage ", list(VERBS)),
        ("tutelage ev", ["evaluate"]),
        ("tutelage distill loss=soft_ta", ["loss=soft_target"]),
        ("tutelage distill model@student=resnet8x", ["model@student=resnet8x4"]),
        ("tutelage distill loss.alph", ["loss.alpha="]),
    ],
)
def test_compgen_in_bash(line, expected):
    done = bash(ASK.format(line=line, empty=' ""' if line.endswith(" ") else ""))
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_uninstall():
    done = bash(
        'eval "$(tutelage -sc install=bash)"; complete -p tutelage; eval "$(tutelage -sc uninstall=bash)"; complete'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("_tutelage_completion") == 1


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_tab_key():
    """bash splits words at = and @ unless it is told not to: only a terminal shows that."""
    bin_ = str(Path(sys.executable).parent)
    env = environment(PATH=f"{bin_}:{os.environ['PATH']}", PS1="$ ", TERM="dumb", INPUTRC="/dev/null", COLUMNS="120")
    master, slave = pty.openpty()
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=slave, stdout=slave, stderr=slave, env=env,
                             start_new_session=True)  # fmt: skip
    os.close(slave)

    def type_(keys, until):
        os.write(master, keys)
        seen, end = b"", time.monotonic() + 1200
        while not re.search(until, seen) and time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 4096)
        assert re.search(until, seen), seen

    try:
        type_(b'eval "$(tutelage -sc install=bash)"; echo rea""dy\n', b"\nready|\rready")
        type_(b"tutelage distill model@student=lenet5_h\t", b"model@student=lenet5_half")
        type_(b"\x15tutelage distill loss.temper\t", rb"loss\.temperature=")
        type_(b"\x15tutelage evalu\t", b"evaluate")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def test_a_choice_that_is_not_there_names_the_nearest_and_none_that_is_no_choice(main):
    said = main("distill", "data=mist").message
    assert "'mist': did you mean 'mnist'" in said
    assert "fashion_mnist" in said
    assert "_base" not in said
