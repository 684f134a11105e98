"""The command line where its words, its terminal or its disk are not as usual: an answer, or one sentence."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment

from tutelage.cli import main as cli
from tutelage.cli import status
from tutelage.runtime.text import in_its_letters

TUTELAGE = (sys.executable, "-m", "tutelage")


@pytest.mark.parametrize("words", [("--help",), ("distill", "--help"), ("distil",)], ids=str)
def test_a_reader_that_has_gone_ends_it_without_a_traceback(tmp_path, words):
    ends = os.pipe()
    os.close(ends[0])
    with os.fdopen(ends[1], "w") as nobody:
        done = subprocess.run(
            [*TUTELAGE, *words], cwd=tmp_path, env=environment(), stdout=nobody, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == (1 if words == ("distil",) else 141)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_closed_output_is_no_reason_to_stop(tmp_path):
    command = " ".join([*TUTELAGE, "--help", ">&-", "2>&-"])
    assert subprocess.run(command, shell=True, cwd=tmp_path, env=environment()).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_letters_gets_plain_ones(tmp_path, encoding):
    done = subprocess.run(
        [*TUTELAGE, "--help"], cwd=tmp_path, env=environment(PYTHONIOENCODING=encoding), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"tutelage - knowledge distillation" in done.stdout
    assert b"outputs/distill/.../checkpoints" in done.stdout


def test_each_letter_that_a_stream_lacks_has_a_plain_one():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    in_its_letters(stream)
    print("distilled − alone: −1.5 ± 0.2, 2×, ≥ 1, Zürich, 雪", file=stream, flush=True)
    assert raw.getvalue() == b"distilled - alone: -1.5 +- 0.2, 2x, >= 1, Zurich, ?\n"


def test_flags_may_stand_between_overrides(main):
    answer = main("distill", "seed=3", "--cfg", "job", "loss.temperature=7", "--package", "loss", "loss.alpha=0.25")
    assert answer.code == 0, answer.message
    assert "temperature: 7" in answer.out
    assert "alpha: 0.25" in answer.out
    answer = main("distill", "seed=3", "-m", "loss.temperature=-1,-2", "hydra.sweep.dir=sweep", "hydra.run.dir=run")
    assert "loss.temperature must be a number > 0" in answer.message


def test_multirun_and_cfg_together_are_refused_in_a_sentence(main):
    answer = main("distill", "-m", "--cfg", "job", "seed=1,2")
    assert answer.code == 1
    assert answer.message.startswith("tutelage distill: --cfg and --multirun can't be combined")


def test_a_tab_in_a_yaml_is_a_sentence_with_file_and_line(main, tmp_path):
    path = tmp_path / "conf" / "experiment" / "tab.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nloss:\n\talpha: 0.1\n")
    answer = main("distill", "--config-dir", str(tmp_path / "conf"), "experiment=tab")
    assert answer.code == 1
    assert "Traceback" not in answer.message
    assert f'in "{path}", line 3' in answer.message
    assert "spaces, never with tabs" in answer.message


def test_a_file_in_the_place_of_a_folder_is_a_sentence(main, tmp_path):
    (tmp_path / "file").touch()
    answer = main("distill", "hydra.run.dir=file/run")
    assert answer.code == 1
    assert "Traceback" not in answer.message
    assert "file/run: a part of this path is a file; a folder is needed" in answer.message


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that lets nobody make a folder")
def test_a_folder_that_nobody_may_make_is_a_sentence(main):
    answer = main("distill", "hydra.run.dir=/proc/tutelage/run")
    assert answer.code == 1
    assert "Traceback" not in answer.message
    assert "the folder can't be created here" in answer.message


def test_traceback_txt_is_named_only_where_it_was_written(main, monkeypatch, tmp_path):
    def fault():
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(status, "main", fault)
    answer = main("status", "outputs")
    assert "Traceback" in answer.message
    assert answer.message.startswith("tutelage status: an error in code of your own: ZeroDivisionError: ours")
    assert "traceback.txt" not in answer.message


def test_what_a_reader_of_words_calls_a_flag_keeps_its_value():
    words = ["a=1", "--config-dir", "my=conf", "-m", "b=2", "-i", "all", "~c"]
    assert cli._sorted(words) == (["a=1", "b=2", "~c"], ["--config-dir", "my=conf", "-m", "-i", "all"])
