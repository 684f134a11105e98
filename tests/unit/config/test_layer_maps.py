"""Which layers the losses of ``loss=text/…`` compare: the published maps, from the networks' own numbers of layers."""

import pytest
from omegaconf import OmegaConf

from tutelage.losses.schedules import between

DEEP = ["model@teacher=text_transformer",
        "model@student=text_transformer", "teacher.net.layers=12", "teacher.net.width=96",
        "student.net.width=96", "teacher.net.heads=12", "student.net.heads=12"]  # fmt: skip


def bound(compose, loss, term, layers=6, *more):
    cfg = compose(*DEEP, f"student.net.layers={layers}", f"loss=text/{loss}", *more)
    found = OmegaConf.to_container(cfg.loss.terms[term], resolve=True)
    return found["inputs"], found["targets"], found


def test_pkd_skips_and_leaves_out_the_last(compose):
    inputs, targets, _ = bound(compose, "pkd", "pkd")
    assert inputs["student"] == [f"student.layer{i}" for i in range(5)]
    assert targets["teacher"] == [f"teacher.layer{i}" for i in (1, 3, 5, 7, 9)]
    last = ["loss.student_layers=[0,1,2,3,4]", "loss.teacher_layers=[6,7,8,9,10]"]
    _, targets, _ = bound(compose, "pkd", "pkd", 6, *last)
    assert targets["teacher"] == [f"teacher.layer{i}" for i in (6, 7, 8, 9, 10)]


def test_tinybert_compares_every_third_of_twelve_and_the_embeddings(compose):
    inputs, targets, found = bound(compose, "tinybert", "states", 4)
    assert inputs["student"] == ["student.embeddings", *(f"student.layer{i}" for i in range(4))]
    assert targets["teacher"] == ["teacher.embeddings", *(f"teacher.layer{i}" for i in (2, 5, 8, 11))]
    inputs, targets, found = bound(compose, "tinybert", "attention", 4)
    assert targets["teacher_key"] == [f"teacher.key{i}" for i in (2, 5, 8, 11)]
    assert found["loss"]["heads"] == 12


@pytest.mark.parametrize("loss", ["minilm", "minilmv2"])
def test_minilm_compares_the_last_layers(compose, loss):
    inputs, targets, found = bound(compose, loss, "relations")
    assert (inputs["student_value"], targets["teacher_query"]) == ("student.value5", "teacher.query11")
    assert targets["mask"] == "batch.mask"
    assert found["loss"]["heads"] == {"minilm": 12, "minilmv2": 48}[loss]
    _, targets, _ = bound(compose, loss, "relations", 6, "loss.teacher_layers=[9]")
    assert targets["teacher_query"] == "teacher.query9"


def test_published_weights_stand_at_the_default_alpha(compose):
    weights = {
        ("distilbert", "hard"): 2, ("distilbert", "soft"): 5, ("distilbert", "cosine"): 1, ("pkd", "soft"): 0.7,
        ("pkd", "pkd"): 100, ("tinybert", "hard"): 0, ("tinybert", "soft"): 1, ("tinybert", "states"): 1,
        ("minilm", "relations"): 1, ("minilmv2", "relations"): 1, ("bilstm", "hard"): 1, ("bilstm", "logit_mse"): 0.5,
    }  # fmt: skip
    for (loss, term), weight in weights.items():
        cfg = compose(*DEEP, "student.net.layers=6", f"loss=text/{loss}")
        assert cfg.loss.terms[term].weight == pytest.approx(weight), (loss, term)


def test_layers_that_do_not_divide_are_one_sentence(compose):
    with pytest.raises(Exception, match="the teacher has 12 layers, the student 5: no multiple"):
        bound(compose, "tinybert", "states", 5)


@pytest.mark.parametrize(
    ("loss", "role", "network", "said"),
    [
        ("tinybert", "student", "bilstm", r"attention \(TinyBERTAttention\) .* the student \(BiLSTM\) has no query0"),
        ("pkd", "student", "text_cnn", r"pkd \(PKD\) .* the student \(TextCNN\) has no layer0, .* shows embedding, cl"),
        ("minilm", "teacher", "text_cnn", r"relations \(MiniLM\) .* the teacher \(TextCNN\) .* model@teacher=text_tr"),
    ],
)
def test_a_network_without_layers_is_one_sentence(compose, loss, role, network, said):
    term = {"tinybert": "attention", "minilm": "relations"}.get(loss, loss)
    cfg = compose("model@teacher=text_transformer", "model@student=text_transformer", f"model@{role}={network}",
                  f"loss=text/{loss}")  # fmt: skip
    with pytest.raises(Exception, match=rf"loss\.terms\.{said}"):
        OmegaConf.to_container(cfg.loss.terms[term].inputs, resolve=True)


def test_parts_of_a_training():
    assert [between(epoch, 4, 0.0, 0.5) for epoch in range(4)] == [1, 1, 0, 0]
    assert [between(epoch, 4, 0.5, 1.0) for epoch in range(4)] == [0, 0, 1, 1]
    assert between(3, 4, 1.0, 1.0) == 0
