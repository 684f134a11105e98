"""Arguments of Lightning's Trainer, callbacks and optimizers of others: they do what they say, or are refused."""

import pytest
import torch
from command import TINY

from tutelage.config import factory
from tutelage.config.trainer_arguments import check_lengths
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.pipeline import fit
from tutelage.runtime.files import recipe_digest
from tutelage.runtime.json_files import read_json

LIGHTNING = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    "trainer",
    [
        {}, {"val_check_interval": 18}, {"val_check_interval": 0.5}, {"val_check_interval": "00:00:01:00"},
        {"val_check_interval": 36, "check_val_every_n_epoch": None}, {"limit_val_batches": 0.5},
        {"limit_train_batches": 40}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 1e-5},
        {"max_steps": 18}, {"max_steps": -1}, {"max_steps": None}, {"max_steps": 9, "val_check_interval": 0.5},
        {"max_steps": 36, "check_val_every_n_epoch": 2}, {"max_steps": 5, "accumulate_grad_batches": 4},
        {"max_steps": 20, "val_check_interval": 20, "check_val_every_n_epoch": None},
        {"max_steps": 1, "val_check_interval": 3, "accumulate_grad_batches": 4},
    ],
    ids=str,
)  # fmt: skip
def test_lengths_that_fit_two_epochs_of_18_batches(trainer):
    check_lengths({"max_epochs": 2, **trainer}, "student", 18, 2)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"val_check_interval": 19}, "from 1 to 18, the batches of the student's epoch, or a share .* found 19"),
        ({"val_check_interval": 0}, "from 1 to 18"),
        ({"val_check_interval": 10, "limit_train_batches": 9}, "from 1 to 9"),
        ({"val_check_interval": 37, "check_val_every_n_epoch": None}, "from 1 to 36, the batches of the student's tra"),
        ({"limit_val_batches": 0.4}, "limit_val_batches must be .* found 0.4, for the student's 2 batches 0"),
        ({"limit_train_batches": 0}, "limit_train_batches must be a number of batches, at least 1"),
        ({"limit_train_batches": 1.5}, "or a share of them up to 1.0; found 1.5"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch=0: the student trains for 2 epochs and would never"),
        ({"val_check_interval": 1.5}, "from 1 to 18, .* or a share of them as 0.5; found 1.5"),
        ({"max_steps": 17}, "max_steps=17: the student is validated for the first time after 18 optimizer steps"),
        ({"max_steps": 0}, "max_steps=0: .* after 18 optimizer steps"),
        ({"max_steps": -2}, "max_steps=-2: .* after 18 optimizer steps"),
        ({"max_steps": 8, "val_check_interval": 0.5}, "after 9 optimizer steps"),
        ({"max_steps": 35, "check_val_every_n_epoch": 2}, "after 36 optimizer steps"),
        ({"max_steps": 4, "accumulate_grad_batches": 4}, "after 5 optimizer steps"),
        ({"max_steps": 19, "val_check_interval": 20, "check_val_every_n_epoch": None}, "after 20 optimizer steps"),
        ({"check_val_every_n_epoch": 3}, "check_val_every_n_epoch=3: the student trains for 2 epochs and would never"),
    ],
)
def test_lengths_that_do_not(trainer, said):
    with pytest.raises(TutelageError, match=said):
        check_lengths({"max_epochs": 2, **trainer}, "student", 18, 2)


@pytest.mark.parametrize(
    ("trainer", "scheduling", "least"),
    [
        ({}, {0: 4}, 5),
        ({}, {1: 4}, 18),
        ({"check_val_every_n_epoch": 2}, {1: 4}, 23),
        ({"val_check_interval": 0.5}, {0: 4}, 2),
        ({"val_check_interval": 27, "check_val_every_n_epoch": None}, {1: 4}, 20),
        ({"val_check_interval": 3}, {0: 4}, 1),
    ],
)
def test_steps_to_the_first_validation_where_a_callback_accumulates(trainer, scheduling, least):
    callbacks = {"grow": {"_target_": f"{LIGHTNING}.GradientAccumulationScheduler", "scheduling": scheduling}}
    check_lengths({"max_epochs": 2, "max_steps": least, **trainer}, "student", 18, 2, {**callbacks, "none": None})
    with pytest.raises(TutelageError, match=f"validated for the first time after {least} optimizer steps"):
        check_lengths({"max_epochs": 2, "max_steps": least - 1, **trainer}, "student", 18, 2, callbacks)


def test_a_user_s_checkpoints_are_in_the_training_s_folder_under_the_user_s_names(compose, tmp_path):
    ours = f"{{_target_: {LIGHTNING}.ModelCheckpoint"
    cfg = compose(
        *TINY,
        f"+callbacks.mine={ours}, filename: 'mine-{{epoch}}', save_top_k: -1}}",
        f"+callbacks.late={ours}, dirpath: own, save_last: true, monitor: val/nll, save_top_k: 0}}",
        f"+callbacks.steps={{_target_: {LIGHTNING}.GradientAccumulationScheduler, scheduling: {{0: 2, 1: 1}}}}",
        "callbacks.recovery.every_n_steps=5",
    )
    check(cfg)
    stage = factory.stage_config(cfg, "control")
    data = factory.data(stage)
    make = lambda: factory.supervised_module(stage, "control", data, None)  # noqa: E731
    fit.run(stage, "control", tmp_path / "made", tmp_path / "board", data, make)
    found = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*.ckpt")}
    assert found == {"callbacks/mine/mine-epoch=0.ckpt", "callbacks/mine/mine-epoch=1.ckpt", "own/last.ckpt"}
    assert read_json(tmp_path / "made" / "stage.json")["steps"] == 9 + 18
    saved = torch.load(tmp_path / "made" / "own" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 27
    assert any("student" in name for name in saved["state_dict"])


def test_keys_that_are_no_texts_have_a_digest_and_their_order_does_not_count():
    assert recipe_digest({"x": {0: 2, "a": 1}}) == recipe_digest({"x": {"a": 1, 0: 2}})
    assert recipe_digest({"x": {0: 2, 4: 1}}) == recipe_digest({"x": {"0": 2, "4": 1}})
    assert recipe_digest({"x": [{10: 2, 9: 1}]}) != recipe_digest({"x": [{10: 1, 9: 2}]})


def test_lbfgs_trains_a_network_with_convolutions(compose):
    own = ("model@student=cnn", "optimizer._target_=torch.optim.LBFGS", "~optimizer.weight_decay", "~optimizer.fused")
    stage = factory.stage_config(compose(*own), "control")
    module = factory.supervised_module(stage, "control", factory.data(stage), None)
    weights = list(module.student.parameters())
    assert any(weight.dim() == 4 for weight in weights)
    optimizer = torch.optim.LBFGS(weights, max_iter=2)

    def loss():
        optimizer.zero_grad()
        value = module.student({"input": torch.ones(2, 1, 8, 8)})["logits"].square().sum()
        value.backward()
        return value

    before = float(loss().detach())
    optimizer.step(loss)
    assert float(loss().detach()) < before


def test_the_command_line_is_noted_as_it_was_given(main, tmp_path):
    answer = main("distill", *TINY, "+assistants.first=${teacher}", "loss.alpha=7", "hydra.run.dir=run")
    assert answer.code == 1
    assert "loss.alpha must be a number" in answer.message
    assert "+assistants.first=${teacher}" in read_json(tmp_path / "run" / "provenance.json")["overrides"]
