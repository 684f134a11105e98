import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from omegaconf import open_dict
from torch.optim import SGD

from tutelage.checkpoints.weights import digest
from tutelage.config import factory
from tutelage.training.callbacks import gradient_norms as norms_file
from tutelage.training.callbacks.gradient_norms import GradientNorms, compared, gradient_norms, is_finite
from tutelage.training.fsdp import Sharded

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode).*")
# Dropout, batch normalisation's statistics and a part that the loss learns: what a second look could change.
JOB = (
    "logger=none", "callbacks.progress=null", "data.batch_size=100", "trainer.log_every_n_steps=2",
    "model@teacher=vgg4", "model@student=vgg4", "student.net.widths=[4,4,8]", "loss=[soft_target,fitnet]",
)  # fmt: skip


def module(compose, *more):
    cfg = compose(*JOB, *more)
    with open_dict(cfg):
        cfg.trainer.max_epochs = 3
        del cfg.callbacks.best
    stage = factory.stage_config(cfg, "student")
    return (
        stage,
        factory.distillation_module(stage, factory.data(stage), factory.sources(stage), None),
        factory.data(stage),
    )


def fit(compose, folder, measure, *more):
    """Trains; returns the callback, the weights and the losses."""
    stage, learner, data = module(compose, *more)
    trainer = factory.trainer(stage, "student", folder, folder, len(data.train_dataloader()))
    [callback] = [one for one in trainer.callbacks if isinstance(one, GradientNorms)]
    if not measure:
        trainer.callbacks.remove(callback)
    trainer.fit(learner, datamodule=data)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("grad_")}
    return callback, digest(learner), figures


def test_the_training_is_the_same_to_the_bit(compose, tmp_path, monkeypatch):
    monkeypatch.setattr(norms_file, "_STEPS", 1)
    measured, *one = fit(compose, tmp_path, True)
    _, *other = fit(compose, tmp_path, False)
    assert one == other
    assert sorted(measured.measured) == [0, 1, 2]
    for terms in measured.measured.values():
        assert list(terms) == ["hard", "soft", "hint"]
        assert all(norm > 0 and -1 <= cosine <= 1 for norm, cosine in terms.values())


def test_seldom_and_at_the_end(compose, tmp_path, monkeypatch):
    """Of three terms and b batches an epoch: where 3·_STEPS steps have gone by."""
    batches = len(module(compose)[2].train_dataloader())
    monkeypatch.setattr(norms_file, "_STEPS", batches // 2)  # between one and two epochs
    assert sorted(fit(compose, tmp_path, True)[0].measured) == [1, 2]
    monkeypatch.setattr(norms_file, "_STEPS", 10**6)
    assert sorted(fit(compose, tmp_path, True)[0].measured) == [2]


def test_one_term_has_nothing_to_be_compared_with(compose, tmp_path):
    assert fit(compose, tmp_path, True, "loss.alpha=0")[0].measured == {}


def test_shards_and_modules_of_ones_own_are_left_alone(compose):
    _, learner, _ = module(compose)
    callback, trainer = GradientNorms(), SimpleNamespace(strategy=None)
    for strategy, asked in ((Sharded(), False), (None, True)):
        trainer.strategy = strategy
        callback.on_train_start(trainer, learner)
        assert (learner.watch is not None) == asked
    callback.on_train_start(trainer, L.LightningModule())
    callback.on_train_end(trainer, L.LightningModule())
    callback.on_train_end(trainer, learner)
    assert learner.watch is None


def test_a_resumed_run_has_all(compose):
    first, second = GradientNorms(), GradientNorms()
    first.measured = {3: {"hard": [1.0, 0.5], "soft": [2.0, 0.5]}}
    second.load_state_dict(first.state_dict())
    assert json.loads(json.dumps(second.measured)) == {"3": {"hard": [1.0, 0.5], "soft": [2.0, 0.5]}}


@pytest.mark.parametrize("factor", [1.0, 1024.0])
def test_norms_and_cosines_are_those_of_a_step_on_one_term(compose, factor):
    """Read from what plain SGD makes of each term alone; half precision's factor has no say."""
    _, learner, data = module(compose, "loss.alpha=0.3")
    learner.dry_run(data)
    learner.eval()  # the same pass whenever it is made
    batch, names = data.sample(40), ("hard", "soft", "hint")
    scaler = SimpleNamespace(get_scale=lambda: factor)
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), strategy=SimpleNamespace(reduce=lambda x, reduce_op: x)
    )
    found = gradient_norms(learner, learner.objective(learner.signals(batch))[1], trainer)
    parameters = list(learner.student.parameters())
    before = torch.cat([p.detach().flatten() for p in parameters])
    steps = {}
    for name in names:
        optimizer = SGD(parameters, lr=1.0)
        optimizer.zero_grad()
        term = learner.objective.terms[name]
        (term.scale * term(learner.signals(batch))).backward()
        optimizer.step()
        steps[name] = before - torch.cat([p.detach().flatten() for p in parameters])
        with torch.no_grad():
            for p, old in zip(parameters, before.split([p.numel() for p in parameters]), strict=True):
                p.copy_(old.view_as(p))
    for name in names:
        rest = sum(step for other, step in steps.items() if other != name)
        expected = [float(steps[name].norm()), float(torch.cosine_similarity(steps[name], rest, dim=0))]
        assert found[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("large", [1.0, 1e15, 1e30, 1e37])
def test_large_gradients_do_not_overflow(large):
    one, other = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
    found = compared({"one": (large * one).float(), "other": other.float()})
    torch.testing.assert_close(found["one"][0].double(), large * one.norm(), rtol=1e-5, atol=0)
    assert is_finite({name: [float(value) for value in both] for name, both in found.items()})


def test_ordinary_gradients_are_compared_to_the_bit_as_torch_does():
    one, other = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    norm, cosine = compared({"one": one, "other": other})["one"]
    assert torch.equal(norm, one.norm())
    assert torch.equal(cosine, torch.cosine_similarity(one, (one + other) - one, dim=-1, eps=1e-12))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_batch_with_a_gradient_that_is_no_number_is_not_measured(compose, tmp_path, monkeypatch, value):
    monkeypatch.setattr(norms_file, "gradient_norms", lambda *_: {"hard": [1.0, 0.5], "soft": [value, 0.5]})
    assert fit(compose, tmp_path, True)[0].measured == {}
