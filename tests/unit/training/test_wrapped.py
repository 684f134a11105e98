"""A network trained around the student: the plain one is described and written, and alpha = 0 is the control."""

import pytest
import torch
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.training.module import SupervisedModule

STUDENT = ("model@student=vgg4", "student.net.widths=[2,4,8]", "model@teacher=mlp", "logger=none")
LOSSES = ("online/one", "online/byot", "online/byot_attention")


def module_of(compose, loss: str, *more: str) -> SupervisedModule:
    stage = factory.stage_config(compose(f"loss={loss}", *STUDENT, *more), "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.dry_run(data)
    return module


@pytest.mark.parametrize("loss", LOSSES)
def test_the_header_rebuilds_the_plain_student_and_a_step_trains_all_parts(compose, loss):
    module = module_of(compose, loss)
    batch = {"input": torch.randn(8, 1, 8, 8), "label": torch.arange(8), "key": torch.arange(8)}
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module.train()
    module.objective.on_epoch_start(5, 10)
    module.objective(module.signals(batch))[0].backward()
    assert [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None] == []
    optimizer.step()
    alone = factory.network(OmegaConf.create(module.about["network"]), 0).net
    alone.load_state_dict(module.written.state_dict())
    module.eval()
    assert torch.equal(alone.eval()(batch["input"]), module.student(batch)["logits"])


@pytest.mark.parametrize("loss", LOSSES)
def test_at_alpha_0_it_is_the_control(compose, loss):
    cfg = compose(f"loss={loss}", *STUDENT, "loss.alpha=0")
    student, control = (factory.stage_config(cfg, name) for name in ("student", "control"))
    assert student.network == control.network == cfg.student
    assert {name for name, term in student.loss.terms.items() if term.weight} == {"hard"}
    assert student.loss.terms.hard.weight == control.loss.terms.hard.weight == 1


def test_weights_are_the_published_ones(compose):
    def weights(loss: str) -> dict[str, float]:
        stage = factory.stage_config(compose(f"loss={loss}", *STUDENT), "student")
        return {name: pytest.approx(term.weight) for name, term in stage.loss.terms.items()}

    assert weights("online/one") == {"hard": 1, "one": 1, "branches_hard": 1, "ensemble_hard": 1}
    assert weights("online/byot") == {"hard": 0.9, "byot": 1, "exits_hard": 0.9}
    assert weights("online/byot_attention") == {"hard": 1, "byot": 1, "exits_hard": 0.7}
    assert weights("adversarial/meal") == {"hard": 0, "soft": 1, "meal": 0.1}


@pytest.mark.parametrize("loss", ["adversarial/logits", "adversarial/features"])
def test_a_discriminator_has_a_learning_rate_of_its_own(compose, loss):
    module = module_of(compose, loss, "loss.rate=0.0123", "optimizer.lr=0.002", "student.net.widths=[2,4,16]")
    groups = module.parameter_groups()
    own = set(map(id, module.objective.parameters()))
    assert own
    for group in groups:
        assert all((id(p) in own) == (group.get("lr") == 0.0123) for p in group["params"])
    alone = factory.stage_config(compose(f"loss={loss}", *STUDENT, "loss.alpha=0"), "student")
    assert {name for name, term in alone.loss.terms.items() if term.weight} == {"hard"}
