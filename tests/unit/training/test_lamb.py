"""``optimizer=lamb``: its step from the formula, its own clipping, and that of the Trainer beside it."""

import lightning as L
import pytest
import torch
from command import TINY

from tutelage.config import factory

pytest.importorskip("timm")


def trained(compose, *overrides):
    """Returns the weights before and after one step of the control, their gradients, and the optimizer's groups."""
    stage = factory.stage_config(compose(*TINY, "optimizer=lamb", *overrides), "control")
    data, seen = factory.data(stage), {}

    class Step(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):  # before the Trainer clips
            seen["gradients"] = {name: one.grad.double() for name, one in pl_module.student.named_parameters()}

    module = factory.supervised_module(stage, "control", data, None)
    seen["before"] = {name: one.detach().double().clone() for name, one in module.student.named_parameters()}
    clip = {key: stage.trainer[key] for key in ("gradient_clip_val", "precision") if key in stage.trainer}
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[Step()], **clip,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    seen["after"] = {name: one.detach().double() for name, one in module.student.named_parameters()}
    return seen, trainer.optimizers[0].param_groups


def expected(seen, norm_limit, rate=5e-3, decay=0.02, eps=1e-6):
    """The first step in float64: with bias correction the moments are g and g²."""
    norm = torch.stack([one.norm() for one in seen["gradients"].values()]).norm()
    scale = max(1.0, float(norm) / norm_limit)
    found = {}
    for name, weight in seen["before"].items():
        gradient = seen["gradients"][name] / scale
        update = gradient / (gradient.abs() + eps)
        if weight.dim() > 1:  # a bias has no decay, hence no trust ratio
            update = update + decay * weight
            update = update * weight.norm() / update.norm()
        found[name] = weight - rate * update
    return found


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|num_workers).*")
@pytest.mark.parametrize(
    ("overrides", "limit"),
    [
        (("optimizer.max_grad_norm=1e-6",), 1e-6),
        (("+trainer.gradient_clip_val=2e-6", "optimizer.max_grad_norm=null"), 2e-6),
    ],
)
def test_a_step_is_that_of_the_formula(compose, overrides, limit):
    """At gradients of about eps the sign of g no longer hides what they were divided by."""
    seen, groups = trained(compose, *overrides)
    wanted = expected(seen, limit)
    for name, weight in seen["after"].items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-4, atol=1e-6)
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.02, 2), (0.0, 2)]


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|num_workers).*")
def test_gradients_are_clipped_in_mixed_precision(compose):
    seen, _ = trained(compose, "trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=2e-6")
    for name, weight in expected(seen, 2e-6).items():
        torch.testing.assert_close(seen["after"][name], weight, rtol=1e-4, atol=1e-6)
