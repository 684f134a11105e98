"""Students that teach themselves, and discriminators, from the command line."""

import pytest
import torch
import torch.multiprocessing
from command import SPLITS
from resumed import killed_ends_like_whole
from runs import figures
from shares import gradients_of_shares, module_of, rank

import tutelage as tt
from tutelage.checkpoints.weights import about

pytestmark = [pytest.mark.slow, pytest.mark.long]

PAIR = ("model@teacher=vgg4", "teacher.net.widths=[2,4,8]", "model@student=vgg4", "student.net.widths=[2,4,8]")
SMALL = (*PAIR, *SPLITS, "trainer.max_epochs=2", "logger=none", "callbacks.recovery.every_n_steps=6")


@pytest.mark.parametrize("loss", ["online/one", "adversarial/logits"])
def test_a_killed_run_ends_in_the_same_weights_and_the_plain_student_is_written(main, cli, tmp_path, loss):
    def run(name, *more):
        place = f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}"
        return "distill", f"loss={loss}", *SMALL, *place, *more

    killed_ends_like_whole(main, cli, run, tmp_path)
    found = figures(tmp_path / "whole/run")
    assert found["student"]["parameters"] == found["control"]["parameters"]
    file = tmp_path / "whole/run/checkpoints/last.safetensors"
    assert about(file)["network"]["net"]["_target_"] == "tutelage.models.vgg.VGG"
    assert sum(p.numel() for p in tt.load(file).parameters()) == found["control"]["parameters"]


def test_two_ranks_average_to_the_gradient_of_the_batch(compose, tmp_path):
    """In eval mode, where no example depends on another; of BYOT's norm over a batch only the average of shares."""
    choices = {
        "one": ("loss=online/one",),
        "byot": ("loss=online/byot",),
        "byot_attention": ("loss=online/byot_attention",),
        "codistillation": ("sources=stale_peers", "loss=online/codistillation"),
        "logits": ("loss=adversarial/logits",),
        "meal": ("loss=adversarial/meal",),
    }
    configs = {name: compose(*own, *PAIR, "data.batch_size=16") for name, own in choices.items()}
    torch.multiprocessing.spawn(rank, (2, str(tmp_path), configs), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for name, cfg in configs.items():
        *shares, whole = gradients_of_shares(*module_of(cfg), [slice(0, 8), slice(8, 16), slice(0, 16)])
        expected = (shares[0] + shares[1]) / 2
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
        distance = float((whole - expected).norm() / whole.norm())
        assert (distance > 1e-4) == (name == "byot_attention"), f"{name}: {distance}"
