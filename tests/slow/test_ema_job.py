"""Averages of the weights through a SIGKILL: they go on with the same bits, are measured, taught from and exported."""

import json

import pytest
import torch
from command import PAIR, SPLITS
from resumed import killed_ends_like_whole
from runs import artifacts
from safetensors.torch import load_file

from tutelage.checkpoints.weights import about, digest, read_state
from tutelage.training.callbacks.average_best import mean_of

pytestmark = pytest.mark.slow

AVERAGED = (PAIR[0], PAIR[2], *SPLITS, "trainer.max_epochs=3", "model@student=vgg4", "student.net.widths=[2,4,4]",
            "callbacks=[ema,average_best]", "callbacks.ema.decay=0.9", "callbacks.average_best.n=2",
            "+callbacks@stages.teacher.callbacks=ema", "callbacks.recovery.every_n_steps=6", "logger=none")  # fmt: skip


@pytest.mark.long
def test_a_killed_run_ends_in_the_same_averages(main, cli, tmp_path):
    def run(name, *more):
        return "distill", *AVERAGED, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    killed_ends_like_whole(main, cli, run, tmp_path, step=40)
    student = tmp_path / "whole/run/checkpoints"
    made = [artifacts(tmp_path / "whole/artifacts", kind) for kind in ("teacher", "control")]
    for [folder] in (*made, [student]):
        assert digest(read_state(folder / "last.safetensors")) != digest(read_state(folder / "raw.safetensors"))

    kept = sorted((student / "averaged").iterdir())
    assert len(kept) == 2
    average, mean = read_state(student / "average.safetensors"), mean_of(map(read_state, kept))
    assert all(torch.equal(average[name], mean[name]) == ("running" not in name) for name in mean if "num_" not in name)
    metrics = json.loads((tmp_path / "whole/run/metrics.json").read_text())
    assert metrics["student"]["average"]["test"]["count"] == metrics["student"]["best"]["test"]["count"]
    assert metrics["gain"].keys() == {"last", "best", "average"}

    made = "format=safetensors", f"output={tmp_path / 'made'}"  # what is exported is the average
    assert main("export", f"checkpoint={student / 'average'}.safetensors", *made).code == 0
    assert digest(load_file(tmp_path / "made/model.safetensors")) == digest(average)
    measured = json.loads((tmp_path / "made/export.json").read_text())
    assert json.dumps(metrics["student"]["average"]["test"]["accuracy"]) in json.dumps(measured)
    assert about(student / "average.safetensors")["epoch"] in (1, 2)
