"""Jobs of causal language models from the command line."""

import json
import signal

import pytest
from corpora import TINY, write_answers
from runs import weights

pytestmark = pytest.mark.slow
pytest.importorskip("tokenizers", reason="needs the text extra")


@pytest.mark.long
def test_alpha_0_is_the_control_and_cached_tokens_teach_as_live_ones(main, tmp_path):
    root = write_answers(tmp_path / "answers.jsonl")
    cases = {
        "control": ["loss.alpha=0"],
        "cached": ["loss.alpha=1", "sources=cached"],
        "live": ["loss.alpha=1", "sources.teacher.cache=false"],
    }
    found = {}
    for name, more in cases.items():
        given = [
            *(one.replace("block=16", "block=60") for one in TINY),
            f"data.root={root}",
            "loss=reverse_kl",
            "loss.where=batch.answer",
            "logger=null",
        ]
        answer = main("distill", *given, *more, f"hydra.run.dir={name}")
        assert answer.code == 0, answer.message
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    student, control = (found["control"][role]["last"] for role in ("student", "control"))
    assert student["test"]["nll"] == control["test"]["nll"]
    assert found["cached"]["student"]["last"] == found["live"]["student"]["last"]
    figures = found["live"]["student"]["last"]["test"]
    assert {"nll", "perplexity", "accuracy", "agreement", "kl_teacher"} <= figures.keys()


@pytest.mark.long
def test_killed_in_a_block_of_a_corpus_it_ends_in_the_same_bits(cli, tmp_path):
    root = write_answers(tmp_path / "answers.jsonl")
    job = ["distill", *(one.replace("block=16", "block=60") for one in TINY), f"data.root={root}", "loss=reverse_kl",
           "logger=null", "callbacks.recovery.every_n_steps=2", "paths.artifacts=shop"]  # fmt: skip
    cli(*job, "hydra.run.dir=whole")
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 3, marker: {tmp_path / 'struck'}}}"
    assert cli(*job, harm, "hydra.run.dir=killed", check=False).returncode == -signal.SIGKILL
    cli(*job, harm, "hydra.run.dir=killed")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
