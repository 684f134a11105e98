"""Faults 1, 7 and 11: a run that was killed, preempted or damaged ends in the bits of one that was not."""

from pathlib import Path

import pytest
from command import SPLITS
from runs import artifacts, figures, scalars, status, weights

pytestmark = pytest.mark.slow

# 18 steps an epoch; a state before every sixth step, so that some lie on an epoch's end.
EVERYTHING = (
    *SPLITS,
    "trainer.max_epochs=3",
    "model@teacher=mlp",
    "model@student=mlp",
    "teacher.net={widths: [24], dropout: 0.2}",
    "student.net={widths: [12], dropout: 0.3}",
    "scheduler=cosine",
    "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]",
    "data.num_workers=1",
    "trainer.log_every_n_steps=5",
    "callbacks.recovery.every_n_steps=6",
)


def harm(kind: str, at: dict[str, int], markers: Path) -> list[str]:
    """Callbacks that strike once in each stage; all of them are in the config of every attempt."""
    return [
        f"+callbacks.{stage}={{_target_: faults.{kind}, stage: {stage}, step: {step}, marker: {markers / stage}}}"
        for stage, step in at.items()
    ]


def run(cli, tmp_path, name, overrides, strikes, code, untouched=False):
    """Starts the same job again after every strike; returns its folder and its artifacts."""
    markers = tmp_path / f"{name}.markers"
    markers.mkdir()
    folder, shop = tmp_path / name, tmp_path / f"{name}.artifacts"
    command = ["distill", *overrides, f"hydra.run.dir={folder}", f"paths.artifacts={shop}"]
    if untouched:
        for stage in strikes[1]:
            (markers / stage).touch()
    else:
        for attempt in range(len(strikes[1])):
            done = cli(*command, *harm(*strikes, markers), check=False)
            assert done.returncode == code, done.stdout + done.stderr
            assert len(list(markers.iterdir())) == attempt + 1
            assert status(folder)["state"] == ("PREEMPTED" if code == 143 else "RUNNING")
            assert not (folder / "metrics.json").exists()
    cli(*command, *harm(*strikes, markers))
    assert status(folder)["state"] == "COMPLETE"
    return folder, shop


@pytest.mark.parametrize(
    ("method", "at"),
    [
        ("loss=fitnet", {"teacher": 21, "control": 40, "student": 19}),
        ("sources=momentum", {"control": 36, "student": 23}),
    ],
)
def test_killed_mid_epoch_in_every_stage(cli, tmp_path, method, at):
    overrides = (*EVERYTHING, method)
    expected, shop = run(cli, tmp_path, "whole", overrides, ("KillAt", at), 0, untouched=True)
    found, found_shop = run(cli, tmp_path, "killed", overrides, ("KillAt", at), -9)
    assert weights(found, found_shop) == weights(expected, shop)
    assert len(weights(found, found_shop)) == 6
    assert figures(found) == figures(expected)
    assert scalars(found / "tensorboard") == scalars(expected / "tensorboard")
    assert {f"{stage}/train/loss" for stage in at} <= scalars(found / "tensorboard").keys()
    assert not list(found.rglob("*.ckpt"))
    assert all(not list(found_shop.rglob(pattern)) for pattern in ("*.ckpt", "*.tmp", "*.work"))
    assert len(artifacts(found_shop, "control")) == 1
