"""Every choice of ``loss``: one epoch from the command line, and what two ranks make of its gradient."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from omegaconf import DictConfig
from runs import figures, status
from shares import gradients_of_shares, module_of, rank

from tutelage.config.paths import conf_dir

pytestmark = pytest.mark.slow

LOSSES = sorted(path.stem for path in Path(conf_dir(), "loss").glob("[!_]*.yaml"))


def pair(loss: str) -> tuple[str, str]:
    """Networks that the loss can read."""
    return "model@teacher=resnet14", f"model@student={'soft_tree' if loss == 'soft_tree' else 'resnet8'}"


# Those that compare examples with one another, or draw a mask: a rank sees its own share of a batch.
OF_A_BATCH = {
    "cc", "crd", "diffkd", "dist", "gkd", "irg", "itrd", "mgd", "mhgd", "mlkd", "pkt", "rkd", "semckd", "soft_tree",
    "sp", "srd", "uskd",
}  # fmt: skip


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One teacher and one control for all losses."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_one_epoch_from_the_command_line(main, tmp_path, artifacts, loss):
    answer = main(
        "distill", f"loss={loss}", *pair(loss), "trainer.max_epochs=1", "logger=none", "callbacks.progress=null",
        "data.val_size=1000", f"paths.artifacts={artifacts}", "hydra.run.dir=run",
    )  # fmt: skip
    assert answer.code == 0, answer.message
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    found = figures(tmp_path / "run")
    assert found["student"]["last"]["test"]["count"] == 597
    alone = loss in ("hard", "ps_kd")  # PS-KD has no epoch before the first
    assert (found["gain"]["last"]["nll"] == 0) == alone


def config(compose, loss: str) -> DictConfig:
    return compose(f"loss={loss}", *pair(loss), "data.batch_size=16")


@pytest.mark.long
def test_two_ranks_average_the_gradients_of_their_shares(compose, tmp_path):
    """As DDP does it, with every loss; and where a loss is a mean over examples, that is the gradient of the batch."""
    configs = {loss: config(compose, loss) for loss in LOSSES if loss != "hard"}
    torch.multiprocessing.spawn(rank, (2, str(tmp_path), configs), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert found.keys() == configs.keys()
    for loss, cfg in configs.items():
        *shares, whole = gradients_of_shares(*module_of(cfg), [slice(0, 8), slice(8, 16), slice(0, 16)])
        expected = (shares[0] + shares[1]) / 2
        torch.testing.assert_close(found[loss], expected, rtol=1e-4, atol=1e-6, msg=lambda m, loss=loss: f"{loss}: {m}")
        distance = float((whole - expected).norm() / whole.norm())
        assert (distance > 1e-4) == (loss in OF_A_BATCH), f"{loss}: {distance}"
