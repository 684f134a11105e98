"""Secrets: values of environment variables and credentials in URLs are in nothing that is written."""

import json
import logging

import pytest
from command import TINY
from omegaconf import OmegaConf
from small_mnist import write

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.runtime import masking

CANARY, LITERAL, TOKEN = "canary-of-the-environment", "canary-in-a-literal", "canary-of-a-parameter"
SIZES = ("trainer.max_epochs=1", *TINY[1:5], "data.batch_size=64", "data.val_size=200")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr(masking, "_read", masking.FromEnvironment())
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


def _leaks(root, *canaries):
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 20
    return [(path, c) for path in files for c in canaries if c.encode() in path.read_bytes() or c in str(path)]


@pytest.mark.long
def test_a_job_writes_no_secret(main, tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", CANARY)
    root = write(tmp_path / "d")
    urls = (
        f'["https://user:${{oc.env:A_SECRET}}@host/","https://u:{LITERAL}@host/x?token={TOKEN}","${{oc.env:A_SECRET}}"]'
    )
    line = ("data=mnist", f"data.root={root}", *SIZES, f"+data.mirrors={urls}", "hydra.sweep.dir=s", "seed=0,1")
    answer = main("distill", "-m", *line)
    assert answer.code == 0, answer.message
    assert not _leaks(tmp_path, CANARY, LITERAL, TOKEN)
    assert not [c for c in (CANARY, LITERAL, TOKEN) if c in answer.out + answer.message]
    last = next((tmp_path / "s").glob("*/checkpoints/last.safetensors"))
    assert main("evaluate", f"checkpoint='{last}'").code == 0
    assert main("report", "s").code == 0
    command = json.loads((last.parents[1] / "provenance.json").read_text())["command"]
    assert any("${oc.env:A_SECRET}" in word and "u:" not in word for word in command)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.batch_size=${oc.env:A_SECRET}", "data.batch_size"),
        ("+data.mirrors=${oc.env:A_SECRET}", "mirrors"),
        ("student.net.num_classes=${oc.env:A_SECRET}", "student.net"),
        ("+teacher.net.name=https://u:canary-of-the-environment@host", "teacher.net.name"),
        ("data._target_=${oc.env:A_SECRET}", "_target_"),
        ("${oc.env:A_SECRET}=3", "_"),
    ],
)
def test_a_message_and_a_failed_job_hold_no_secret(main, tmp_path, monkeypatch, override, said):
    monkeypatch.setenv("A_SECRET", CANARY)
    answer = main("distill", *TINY, override, "hydra.run.dir=r")
    assert answer.code == 1
    assert said in answer.message
    assert CANARY not in answer.message + answer.out
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert CANARY not in path.read_text(errors="replace"), path


def test_a_network_that_no_file_could_describe_is_refused(compose, monkeypatch):
    monkeypatch.setenv("A_SECRET", CANARY)
    stage = factory.stage_config(compose("+student.net.note=${oc.env:A_SECRET}"), "student")
    with pytest.raises(TutelageError, match=r"the student's net\.note comes from an environment variable"):
        factory.about(stage, "student")


def test_settings_of_the_environment_are_kept(monkeypatch):
    monkeypatch.setenv("TUTELAGE_DATA", "/mnt/images-of-mine")
    monkeypatch.setenv("HERE", "/mnt/outputs-of-mine")
    monkeypatch.setenv("NUMBER", "0.0001234")
    monkeypatch.setenv("SHORT", "cuda")
    monkeypatch.setenv("A_SECRET", CANARY)
    plain = {
        "paths": {"data": "${oc.env:TUTELAGE_DATA}", "outputs": "${oc.env:HERE}"}, "lr": "${oc.env:NUMBER}",
        "device": "${oc.env:SHORT}", "data": {"root": "${paths.data}/x"}, "x": ["a ${oc.env:A_SECRET}"],
        "y": "${oc.env:MISSING,by-default}", "file": "${oc.env:HERE}/file",
    }  # fmt: skip
    cfg = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    assert cfg["x"] == [f"a {CANARY}"]
    assert masking.hidden(cfg) == {**cfg, "x": ["a (hidden)"]}


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://user:pass@host/x", "https://(hidden)@host/x"),
        ("see ftp://t@ken@host/x, http://b", "see ftp://(hidden)@host/x, http://b"),
        ("https://h/x?a=1&access_token=abc&b=2", "https://h/x?a=1&access_token=(hidden)&b=2"),
        ("https://u:${oc.env:A}@host", "https://u:${oc.env:A}@host"),
        ("https://u:p${oc.env:A}@host", "https://(hidden)@host"),
        ("sqlite:////home/a@b/study.db", "sqlite:////home/a@b/study.db"),
        ("mail me@host.org", "mail me@host.org"),
    ],
)
def test_credentials_of_a_url_are_hidden(text, safe):
    assert masking.hide(text) == safe
    assert masking.hide(safe) == safe


def test_logs_hold_no_secret_and_no_escape_sequence(caplog):
    masking.remember([CANARY])
    masking.mask_logs()
    log = logging.getLogger("tutelage.test")
    log.warning("it is %s \x1b[31m", CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("failed")
    assert CANARY not in caplog.text
    assert "\x1b" not in caplog.text
    assert "ValueError: (hidden)" in caplog.text
