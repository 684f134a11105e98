"""Every loss at its defaults on every kind of network of the published tables: what it reads is there and fits."""

from pathlib import Path

import pytest
import torch

from tutelage.config import factory
from tutelage.config.paths import conf_dir

pytestmark = pytest.mark.slow

LOSSES = sorted(path.stem for path in Path(conf_dir(), "loss").glob("[!_]*.yaml") if path.stem != "soft_tree")
NARROW = ("+teacher.net.widths=[4,4,6,6,8]", "+student.net.widths=[4,4,6,6,8]")
LARGE = "{_target_: tutelage.models.adapter.Resize, size: [32, 32], mode: nearest}"  # digits as large as CIFAR's
PAIRS = {
    "vgg": ("model@teacher=vgg8", "model@student=vgg8", *NARROW),
    "wrn": ("model@teacher=wrn_16_1", "model@student=wrn_16_1"),
    "resnet": ("model@teacher=resnet14", "model@student=resnet8"),
    "shufflenet": ("model@teacher=wrn_16_1", "model@student=shufflenet_v1", "student.net.widths=[48,96,192]"),
}
EQUAL_WIDTHS = {"fsp", "kdsvd", "mhgd"}
# In `make test` the pair of two kinds of network; residual ones are in test_losses.py.


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS)
def test_every_loss_teaches_it(compose, pair):
    torch.set_num_threads(1)
    for loss in LOSSES:
        if pair == "shufflenet" and loss in EQUAL_WIDTHS:
            continue
        size = (f"+teacher.adapter={LARGE}", f"+student.adapter={LARGE}", "data.batch_size=8")
        stage = factory.stage_config(compose(f"loss={loss}", *PAIRS[pair], *size), "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        module.dry_run(data)
        for term in module.objective.modules():
            if hasattr(term, "prepared"):
                term.prepared = True  # a paraphraser of any kind
        value, _ = module.train().objective(module.signals(data.sample(8)))
        value.backward()
        gradients = [p.grad for p in module.student.parameters() if p.grad is not None]
        assert value.isfinite(), loss
        assert gradients, loss
        assert all(gradient.isfinite().all() for gradient in gradients), loss
