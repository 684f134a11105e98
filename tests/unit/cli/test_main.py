import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command import TINY, environment
from omegaconf import OmegaConf

from tutelage.cli import main as cli
from tutelage.config.paths import anchor
from tutelage.runtime.json_files import read_json


def test_without_a_verb_it_says_what_there_is(main):
    answer = main()
    assert answer.code == 2
    assert "usage: tutelage <verb>" in answer.out
    assert all(verb in answer.out for verb in cli.VERBS)


@pytest.mark.parametrize("flag", ["-h", "--help", "help"])
def test_help(main, flag):
    answer = main(flag)
    assert answer.code == 0
    assert answer.out.strip() == cli.usage()


@pytest.mark.parametrize(
    ("verb", "near"), [("distil", "'distill'"), ("evalute", "'evaluate'"), ("zzz", "distill, evaluate")]
)
def test_an_unknown_verb_is_answered_with_the_nearest(main, verb, near):
    answer = main(verb)
    assert answer.code == 1
    assert f"no verb {verb!r}" in answer.message
    assert near in answer.message


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_an_empty_name_of_a_folder_is_refused_before_anything_is_written(main, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = main("distill", f"{key}=")
    assert (answer.code, answer.message) == (1, f"tutelage distill: {key}= names no folder")
    assert not [*tmp_path.iterdir()]


def test_a_verb_s_help_lists_groups_and_keys(main):
    answer = main("distill", "--help")
    assert answer.code == 0
    assert "distill - a verb of Tutelage" in answer.out
    assert "loss: " in answer.out
    assert "soft_target" in answer.out
    assert "max_epochs:" in answer.out


def test_cfg_prints_the_composed_config(main):
    answer = main("distill", "--cfg", "job", "loss.temperature=7")
    assert answer.code == 0
    assert "temperature: 7" in answer.out
    answer = main("distill", "--cfg", "job", "--package", "loss", "--resolve", "loss.alpha=0.25")
    assert "weight: 0.75" in answer.out


def test_a_fault_of_ours_is_called_a_bug_and_has_its_whole_traceback(main, monkeypatch, tmp_path):
    from tutelage.pipeline import distill
    from tutelage.runtime import json_files

    monkeypatch.setattr(distill, "distill_job", partial(json_files.write_json, tmp_path / "x.json"))
    answer = main("distill", "hydra.run.dir=run")
    assert answer.code == 1
    assert "Traceback" in answer.message
    assert "tutelage distill: this is a bug in Tutelage: TypeError: Object of type DictConfig" in answer.message
    assert "write_json" in (tmp_path / "run" / "traceback.txt").read_text()


def test_an_error_below_code_of_one_s_own_is_one_sentence_with_its_line(main, monkeypatch, tmp_path):
    from tutelage.pipeline import distill
    from tutelage.runtime import json_files

    monkeypatch.setattr(distill, "distill_job", lambda cfg: json_files.write_json(tmp_path / "x.json", object()))
    answer = main("distill", "hydra.run.dir=run")
    assert answer.code == 1
    assert "Traceback" not in answer.message
    assert "tutelage distill: an error in code of your own: TypeError: Object of type object" in answer.message
    assert f" ({__file__}, line " in answer.message
    assert f"({tmp_path}/run/traceback.txt has its traceback)" in answer.message
    assert "write_json" in (tmp_path / "run" / "traceback.txt").read_text()


def test_a_home_in_an_override_is_expanded(main, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main("distill", "loss.alpha=7", "paths.outputs=~/out", "hydra.run.dir=~/mine").code == 1
    assert (tmp_path / "home" / "mine").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
@pytest.mark.long
def test_jobs_that_change_their_folder_share_their_artifacts_and_find_their_files(main, tmp_path):
    words = ["distill", "-m", *TINY, "hydra.job.chdir=true", "loss.temperature=1,2", "hydra.sweep.dir=sweep"]
    answer = main(*words)
    assert answer.code == 0, answer.message
    [made] = (tmp_path / "outputs" / "artifacts" / "teacher").glob("[!.]*")
    assert not list(tmp_path.glob("sweep/*/outputs"))
    (made / "last.safetensors").rename(tmp_path / "given.safetensors")
    given = ("launcher=stacked", "sources.teacher.checkpoint=given.safetensors")
    answer = main(*words[:-1], "hydra.sweep.dir=stack", *given)
    assert answer.code == 0, answer.message
    configs = [OmegaConf.load(path) for path in tmp_path.glob("stack/*/config.yaml")]
    assert [one.sources.teacher.checkpoint for one in configs] == [str(tmp_path / "given.safetensors")] * 2
    assert [read_json(path)["state"] for path in tmp_path.glob("stack/*/status.json")] == ["COMPLETE"] * 2
    assert not list(tmp_path.glob("stack/*/outputs"))


def test_relative_places_are_those_of_the_folder_of_the_command(tmp_path, monkeypatch):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "t.pt").touch()
    (tmp_path / "digits").touch()
    monkeypatch.setenv("HOME", "/home/me")
    content = {
        "paths": {"outputs": "out", "data": "/abs"},
        "data": {"_target_": "w/t.pt", "root": "not/there", "name": "digits"},
        "sources": {"teacher": {"checkpoint": "w/t.pt", "net": "${student}"}, "all": ["w/t.pt", "w/none.pt"]},
        "student": {"pretrained": "w/t.pt"}, "callbacks": {"mine": {"dirpath": "w"}}, "nothing": None, "much": "???",
        "other": {"root": "~/images", "path": "${oc.env:NOWHERE}", "count": 3},
    }  # fmt: skip
    cfg = OmegaConf.create(content)
    anchor(cfg, OmegaConf.create({"job": {"chdir": True}, "runtime": {"cwd": str(tmp_path)}}))
    found = OmegaConf.to_container(cfg)
    assert found["paths"] == {"outputs": f"{tmp_path}/out", "data": "/abs"}
    assert found["data"] == {"_target_": "w/t.pt", "root": f"{tmp_path}/not/there", "name": "digits"}
    assert found["sources"]["teacher"] == {"checkpoint": f"{tmp_path}/w/t.pt", "net": "${student}"}
    assert found["sources"]["all"] == [f"{tmp_path}/w/t.pt", "w/none.pt"]
    assert found["student"]["pretrained"] == f"{tmp_path}/w/t.pt"
    assert found["other"] == {"root": "/home/me/images", "path": "${oc.env:NOWHERE}", "count": 3}
    assert found["callbacks"] == content["callbacks"]
    cfg = OmegaConf.create(content)
    anchor(cfg, OmegaConf.create({"job": {"chdir": None}, "runtime": {"cwd": str(tmp_path)}}))
    content["other"]["root"] = "/home/me/images"
    assert OmegaConf.to_container(cfg) == content


def test_a_user_s_mistake_has_one_only_where_asked_for(main, monkeypatch):
    assert "Traceback" not in main("distill", "loss.alpha=7", "hydra.run.dir=run").message
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    answer = main("distill", "loss.alpha=7", "hydra.run.dir=run")
    assert "Traceback" in answer.message
    assert "loss.alpha must be a number" in answer.message


def test_evaluate_says_what_it_needs(main):
    answer = main("evaluate", "hydra.run.dir=run")
    assert answer.code == 1
    assert "checkpoint=… is needed" in answer.message
    answer = main("evaluate", "checkpoint=nothing.safetensors", "hydra.run.dir=run")
    assert "no file" in answer.message
    assert "nothing.safetensors" in answer.message
    assert "split must be train, val or test; found 'tset'" in main("evaluate", "checkpoint=x", "split=tset").message


HEAVY = ("torch", "lightning", "torchmetrics", "sklearn", "tensorboard", "scipy", "numpy")
PROBE = f"""
import sys
from omegaconf import OmegaConf

from tutelage.cli import main as cli
from tutelage.config.paths import anchor
from tutelage.runtime.json_files import read_json
sys.argv = ["tutelage", *sys.argv[1:]]
try:
    cli.main()
finally:
    loaded = [name for name in {HEAVY} if name in sys.modules]
    if loaded:
        sys.exit(f"loaded {{loaded}}")
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], ""),
        (["--help"], ""),
        (["distil"], ""),
        (["distill", "--help"], ""),
        (["distill", "--hydra-help"], ""),
        (["distill", "--cfg", "job"], ""),
        (["evaluate", "--cfg", "job"], ""),
        (["report", "--help"], ""),
        (["report", "no/such/folder"], ""),
        (["-sc", "install=bash"], ""),
        (["-sc", "query=bash"], "tutelage distill loss=so"),
        (["-sc", "query=bash"], "tutelage distill model@student=res"),
    ],
    ids=str,
)
def test_answers_at_once_because_nothing_heavy_is_imported(tmp_path, arguments, line):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=tmp_path, env=environment(COMP_LINE=line), capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert "loaded [" not in done.stderr
    assert done.stdout + done.stderr


def test_as_a_module_and_as_a_script(tmp_path):
    script = [str(Path(sys.executable).with_name("tutelage"))]
    said = [
        subprocess.run(
            [*command, "--help"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
        )
        for command in ([sys.executable, "-m", "tutelage"], script)
    ]
    assert said[0].stdout == said[1].stdout
    assert "usage: tutelage <verb>" in said[0].stdout
