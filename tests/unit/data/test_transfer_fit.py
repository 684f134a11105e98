"""Trainings on few labels: what a module makes of rows without one, and a resumption among repeated keys."""

import lightning as L
import pytest
import torch
from omegaconf import open_dict

from tutelage.config import factory

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|val_dataloader|validation_step).*")
FEW = ("data.labelled=40", "data.repeat_labelled=5", "data.augment=[{_target_: tutelage.data.augment.Flip}]")
LABELS = ("loss=[ps_kd,crd,dkd]", "loss.alpha=0.5", "loss.terms.crd.loss.negatives=50")  # with the hard one, all kinds


class Watch(L.Callback):
    """Notes loss, keys and labels of every step, and saves before one."""

    def __init__(self, path=None, step=None):
        self.path, self.step, self.seen = path, step, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.path and trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((float(outputs["loss"]), batch["key"].tolist(), batch["label"].tolist()))


def fit(compose, folder, watch, checkpoint=None, **overrides):
    networks = ("model@teacher=mlp", "model@student=mlp", "student.net.widths=[16]", "teacher.net.widths=[16]")
    more = [f"{key}={value}" for key, value in overrides.items()]
    cfg = compose(*FEW, *LABELS, *networks, *more, "logger=none", "callbacks.progress=null")
    with open_dict(cfg):
        cfg.trainer.max_epochs, cfg.trainer.limit_val_batches, cfg.callbacks = 2, 0, {}
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    trainer = factory.trainer(stage, "student", folder, folder, len(data.train_dataloader()))
    trainer.callbacks.append(watch)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    return module


def test_every_kind_of_term_trains_on_few_labels_and_goes_on_in_the_same_bits(compose, tmp_path):
    torch.set_num_threads(1)
    whole, rest = Watch(tmp_path / "state.ckpt", 30), Watch()
    module = fit(compose, tmp_path, whole)
    assert {t.labelled_only for name, t in module.objective.terms.items() if name != "crd"} == {True}
    assert not module.objective.terms["crd"].labelled_only
    assert len(whole.seen) == 2 * ((600 + 4 * 40) // 32)
    assert all(torch.tensor(loss).isfinite() for loss, _, _ in whole.seen)
    keys = [key for _, keys, _ in whole.seen[:23] for key in keys]
    assert max(keys.count(key) for key in keys) == 5
    assert any(len(set(keys)) < len(keys) for _, keys, _ in whole.seen)  # twice in one batch
    [state] = tmp_path.glob("state*.ckpt")
    fit(compose, tmp_path, rest, state)
    assert rest.seen == whole.seen[30:]


def test_the_teacher_has_all_labels_unless_told_otherwise(compose):
    few = ("data.labelled=40", "data.classes=[0, 1]", "data.repeat_labelled=3")
    plain = factory.data(factory.stage_config(compose(), "teacher"))
    for stage in ("student", "control"):
        data = factory.data(factory.stage_config(compose(*few), stage))
        assert set(data.splits["train"].labels.tolist()) == {-100, 0, 1}
        assert data.absent == list(range(2, 10))
        assert data.fingerprint() != plain.fingerprint()
    teacher = factory.data(factory.stage_config(compose(*few), "teacher"))
    assert teacher.fingerprint() == plain.fingerprint()
    assert torch.equal(teacher.splits["train"].keys, plain.splits["train"].keys)
    assert torch.equal(teacher.splits["val"].keys, data.splits["val"].keys)
    own = factory.data(factory.stage_config(compose(*few, "stages.teacher.data.labelled=100"), "teacher"))
    assert int((own.splits["train"].labels >= 0).sum()) == 100
