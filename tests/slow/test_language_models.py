"""Jobs of causal language models from the command line."""

import json

import pytest
from corpora import TINY, write_answers

pytestmark = pytest.mark.slow
pytest.importorskip("tokenizers", reason="needs the text extra")


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
