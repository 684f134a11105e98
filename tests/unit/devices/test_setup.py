"""``LightningModule.setup`` runs before the networks are moved, while Lightning's ``device`` says that they were."""

import lightning as L
import pytest
import torch

from tutelage import build


@pytest.mark.parametrize("loss", ["soft_target", "fitnet", "crd", "ps_kd"])
def test_the_dry_pass_runs_where_the_networks_still_are(compose, loss):
    stage = build.stage_config(compose(f"loss={loss}"), "student")
    data = build.data(stage)
    module = build.distillation_module(stage, data.num_classes, build.sources(stage), None)
    module.trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    module.trainer.datamodule = data
    module._device = torch.device("meta")  # as trainer.call._call_setup_hook does, with the strategy's device
    module.setup("fit")
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}
