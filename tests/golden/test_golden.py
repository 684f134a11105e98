"""Twenty steps of every loss on the digits, compared with the curves on file: a refactor leaves them as they are.

``make golden`` writes them anew; a commit that does so says why.
"""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import open_dict

from tutelage.config import factory
from tutelage.config.paths import conf_dir
from tutelage.training.fast_loop import Quiet

HERE = Path(__file__).parent
LOSSES = sorted(path.stem for path in Path(conf_dir(), "loss").glob("[!_]*.yaml"))
STEPS = 20


class Curve(Quiet):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"]))
        trainer.should_stop = len(self.losses) == STEPS


def curve(compose, loss: str, folder: Path) -> list[float]:
    """A pair of small CNNs; of ResNet-8s where a loss reads batch normalisation or the map before a bare classifier.

    ResNet-8s train in double precision: in single precision their batch normalisation makes of the last bits, in which
    processors differ, a ten-thousandth within twenty steps. A soft tree's loss reads a tree. MHGD's attention learns
    for some epochs only.
    """
    pair = "resnet8" if loss in ("cat_kd", "ft", "ofd", "sdd", "simkd") else "cnn"
    student = "soft_tree" if loss == "soft_tree" else pair
    short = ["loss.terms.mhgd.loss.epochs=4"] if loss == "mhgd" else []
    precise = ["trainer.precision=64-true"] if pair == "resnet8" else []
    cfg = compose(
        *short,
        *precise,
        f"loss={loss}",
        f"model@teacher={pair}",
        f"model@student={student}",
        "logger=none",
        "callbacks.progress=null",
    )
    with open_dict(cfg):
        cfg.trainer.max_epochs, cfg.trainer.limit_val_batches = 2, 0
        del cfg.callbacks.best
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    trainer = factory.trainer(stage, "student", folder, folder, len(data.train_dataloader()))
    trainer.callbacks.append(noted := Curve())
    trainer.fit(module, datamodule=data)
    return noted.losses


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|val_dataloader|validation_step).*")
@pytest.mark.parametrize("loss", [pytest.param(x, marks=pytest.mark.long) if x == "ft" else x for x in LOSSES])
def test_the_curve_is_the_one_on_file(compose, tmp_path, request, loss):
    torch.set_num_threads(1)
    found = curve(compose, loss, tmp_path)
    path = HERE / f"{loss}.json"
    if request.config.getoption("--write-golden"):
        path.write_text(json.dumps([float(f"{value:.7g}") for value in found]) + "\n")
    assert path.is_file(), (
        f"no golden curve for loss={loss}: `make golden` writes {path.name}; look at it and commit it"
    )
    assert len(found) == STEPS
    assert found == pytest.approx(json.loads(path.read_text()), rel=2e-5)  # CPUs differ in the last bits


def test_no_curve_is_left_over():
    experiments = {path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml")}
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    own = {name for name in experiments if f"{name}.json" in tests}  # read by a test of its own
    assert sorted(path.stem for path in HERE.glob("*.json") if path.stem not in own) == LOSSES
