import pytest
from torch import nn

from tutelage.config import factory
from tutelage.losses.feature.fitnet import FitNet
from tutelage.training.replicas import graph_arguments, leave_out_buffers, unreached


@pytest.fixture
def learner(compose):
    def make(*overrides):
        stage = factory.stage_config(compose("model@teacher=mlp", "model@student=mlp", *overrides), "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        module.dry_run(data)
        return module, data

    return make


@pytest.mark.parametrize("loss", ["ps_kd", "ctkd", "crd"])
def test_what_is_equal_on_all_ranks_is_not_copied_at_each_step(learner, loss):
    module, _ = learner(f"loss={loss}")
    assert [name for name, _ in module.named_buffers()]
    assert leave_out_buffers(module) == []


def test_statistics_of_batch_norm_are_rank_0s(learner):
    module, _ = learner("model@student=resnet8", "loss=crd")
    copied = leave_out_buffers(module)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(copied) == 3 * len(norms) > 0
    assert {name.rsplit(".", 1)[1] for name in copied} == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_parameters_that_the_objective_leaves_out_are_known_before_the_first_step(learner, alpha):
    module, data = learner("loss=fitnet", f"loss.alpha={alpha}", "loss.terms.hint.loss.rectify=false")
    before = {name: x.clone() for name, x in module.state_dict().items()}
    missing = unreached(module, data)
    assert module.training
    assert all((x == before[name]).all() for name, x in module.state_dict().items())
    assert all(x.grad is None for x in module.parameters())
    last = list(dict(module.student.net.named_parameters()))[-2:]
    assert [name.split("net.", 1)[1] for name in missing] == (last if alpha == 1 else [])
    assert graph_arguments(module, data) == ({"static_graph": True} if alpha == 1 else {})


def test_a_schedule_of_a_terms_weight_leaves_the_graph_as_it_is(learner):
    warm = "+loss.terms.soft.schedule={_target_: tutelage.losses.schedules.warmup, _partial_: true, length: 3}"
    assert graph_arguments(*learner(warm)) == {}


def test_a_loss_that_hears_of_epochs_may_change_the_graph(learner, monkeypatch):
    monkeypatch.setattr(FitNet, "on_epoch_start", lambda self, epoch, epochs: None, raising=False)
    made = learner("loss=fitnet", "loss.terms.hint.loss.rectify=false")
    assert graph_arguments(*made) == {"find_unused_parameters": True}


@pytest.mark.parametrize("loss", ["ft", "ps_kd", "ctkd"])
def test_losses_with_a_phase_or_an_epochs_number_keep_their_graph(learner, loss):
    pair = ("model@teacher=cnn", "model@student=cnn") if loss == "ft" else ()
    assert graph_arguments(*learner(f"loss={loss}", *pair)) == {}
