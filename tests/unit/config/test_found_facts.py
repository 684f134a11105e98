"""${found:…}: data are looked at once for all trainings of a job that have the same examples."""

import pytest
from texts import reviews, tsv

from tutelage.config import found
from tutelage.config.plan import plan_job

pytest.importorskip("tokenizers")


def test_a_job_looks_once_whatever_its_trainings_do_with_the_examples(compose, tmp_path, monkeypatch):
    looked, look = [], found._look
    monkeypatch.setattr(found, "_look", lambda node: looked.append(node) or look(node))
    tsv(tmp_path / "train.tsv", reviews(40))
    sampler = "{_target_: tutelage.data.samplers.ByLength, field: input, window: 8, labelled_only: true}"
    cfg = compose("data=text", f"data.train={tmp_path}/train.tsv", "data.batch_size=8", "data.val_size=8",
                  "data.test_size=8", "data.labelled=8", f"+stages.teacher.data.sampler={sampler}",
                  "model@teacher=text_transformer", "model@student=text_cnn")  # fmt: skip
    plan = plan_job(cfg)
    assert plan.student.data.num_classes == plan.stages["teacher"].data.num_classes == 2
    assert len(looked) == 1


def test_facts_that_a_config_states_otherwise_are_looked_at(compose, tmp_path):
    tsv(tmp_path / "train.tsv", reviews(40))
    given = [
        "data=text",
        f"data.train={tmp_path}/train.tsv",
        "data.batch_size=8",
        "data.val_size=8",
        "data.test_size=8",
    ]
    size = compose(*given).data.vocab_size
    with pytest.raises(Exception, match=rf"data\.vocab_size={size + 1}: .* has {size} ids"):
        _ = compose(*given, f"data.vocab_size={size + 1}").data.num_classes
