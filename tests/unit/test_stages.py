"""How many threads a stage trains on."""

import pytest
import torch

from tutelage import build, stages


@pytest.mark.parametrize(("batch_size", "threads"), [(4, 1), (512, 2)])
def test_a_batch_of_little_work_is_not_shared(compose, monkeypatch, batch_size, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    stage = build.stage_config(compose("model@student=cnn_wide", f"data.batch_size={batch_size}"), "control")
    data = build.data(stage)
    learner = build.supervised_module(stage, "control", data.num_classes, None)
    try:
        with stages.threads(learner, data):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with stages.threads(learner, data):
            assert torch.get_num_threads() == 2  # the user's word
    finally:
        torch.set_num_threads(before)
