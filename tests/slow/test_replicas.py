"""Two ranks learn what one process learns, whatever part of the network the objective reaches."""

import pytest
import torch
import torch.multiprocessing
from two_ranks import masked_gradients, rank, train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*Grad strides do not match.*")]

PAIR = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[8]")
FEW = ("data.batch_size=64", "+trainer.limit_train_batches=4", "+trainer.limit_val_batches=1", "trainer.max_epochs=2")
QUIET = ("logger=none", "callbacks.progress=null", "trainer.accelerator=cpu")
HINT = ("loss=fitnet", "loss.alpha=1", "loss.terms.hint.loss.rectify=false")
CASES = {
    "a hint alone": (HINT, {"static_graph": True}),
    "a hint alone, accumulated": ((*HINT, "+trainer.accumulate_grad_batches=2"), {"find_unused_parameters": True}),
    "terms that change": (
        (
            *HINT, "loss.terms.hint.loss={_target_: two_ranks.HintsFirst, rectify: false}",
            "+loss.terms.hint.inputs.logits=student.logits", "+loss.terms.hint.targets.label=batch.label",
        ),
        {"find_unused_parameters": True},
    ),
    "every parameter": (("loss=ps_kd",), {}),
    "two gradients apart": (("optimizer=dot", "loss=soft_target"), {}),
    "two gradients apart, a hint": (("optimizer=dot", "loss=fitnet", "loss.terms.hint.loss.rectify=false"), {}),
    "peers": (("sources=peers", "loss=online/dml"), {}),
    "peers with weights of their errors": (("sources=peers", "loss=online/kdcl", "loss.rule=general"), {}),
}  # fmt: skip
MASKED = ("soft_target", "dkd", "nkd", "tfkd_reg", "wsld")


def config(compose, *overrides):
    cfg = compose(*PAIR, *FEW, *QUIET, *overrides)
    del cfg.callbacks.best, cfg.callbacks.recovery
    return cfg


@pytest.mark.long
def test_two_ranks_learn_what_one_process_learns(compose, tmp_path):
    trainings = {name: config(compose, *overrides, "trainer=ddp", *QUIET) for name, (overrides, _) in CASES.items()}
    masked = {loss: config(compose, f"loss={loss}", "loss.alpha=0.5", "data.labelled=100") for loss in MASKED}
    torch.multiprocessing.spawn(rank, (str(tmp_path), trainings, masked), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, (overrides, told) in CASES.items():
        assert found[name]["told"] == told, name
        expected = train(config(compose, *overrides), tmp_path / "one")["weights"]
        assert found[name]["weights"].keys() == expected.keys()
        for key, value in expected.items():
            message = f"{name}, {key}"
            torch.testing.assert_close(found[name]["weights"][key], value, rtol=1e-4, atol=1e-6, msg=message)
    for loss, cfg in masked.items():
        expected = masked_gradients(cfg, slice(0, 16))
        assert expected.norm() > 0
        torch.testing.assert_close(found[f"masked {loss}"], expected, rtol=1e-4, atol=1e-7, msg=f"{loss}, masked")
