"""Parameters with settings of their own: each is in one group, with the settings that the rules say."""

from functools import partial

import pytest
import torch
from command import TINY
from runs import weights
from torch import nn

from tutelage.config import factory, optimizers
from tutelage.config.plan import plan_job
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.pipeline.distill import distill
from tutelage.pipeline.try_out import try_out
from tutelage.stacked import plan
from tutelage.training.parameter_groups import layers_of, public_name, rules_of

ADAMW = partial(torch.optim.AdamW, lr=1.0, weight_decay=0.5)
FITNET = (*TINY, "loss=[soft_target,fitnet]", "model@teacher=mlp", "model@student=mlp", "optimizer=adamw")


class Encoder(nn.Module):
    """A transformer's outline: embeddings with a position, blocks in a list, a last normalisation, a head."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 3))
        self.embedding = nn.Linear(3, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3)) for _ in range(2))
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)


def named(net):
    return {f"student.{name}": one for name, one in net.named_parameters()}


def settings(net, more=(), elsewhere=(), **options):
    """Name → the settings of its group in an optimizer; checks that every parameter is in one group."""
    parameters = named(net) | dict(more)
    optimizer = ADAMW(rules_of(options).grouped(parameters, net, ADAMW, elsewhere))
    inside = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(inside) == sorted(map(id, parameters.values()))
    of = {id(one): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for one in group["params"]}
    return {name: of[id(one)] for name, one in parameters.items()}


def test_norms_and_biases_do_not_decay():
    found = settings(Encoder(), no_decay="norm_and_bias")
    assert {name for name, (_, decay) in found.items() if decay == 0} == {
        name for name in found if name.endswith(".bias") or ".0.weight" in name or name == "student.norm.weight"
    }
    assert {lr for lr, _ in found.values()} == {1.0}


def test_patterns_are_added_to_norms_and_biases():
    found = settings(Encoder(), no_decay=["norm_and_bias", "*.position"])
    assert found["student.position"] == (1.0, 0.0)
    assert found["student.head.weight"] == (1.0, 0.5)


def test_rates_fall_from_layer_to_layer():
    found = settings(Encoder(), layer_decay=0.5)
    depth = {"position": 3, "embedding.weight": 3, "embedding.bias": 3, "norm.weight": 1, "head.bias": 0}
    depth |= {"blocks.0.0.weight": 2, "blocks.0.1.weight": 2, "blocks.1.1.bias": 1}
    assert {name: found[f"student.{name}"][0] for name in depth} == {name: 0.5**d for name, d in depth.items()}


def test_layers_are_those_of_timm_s_own_layer_decay():
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    net = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    theirs = {
        id(one): group["lr_scale"]
        for group in param_groups_layer_decay(net, layer_decay=0.75)
        for one in group["params"]
    }
    found = settings(net, layer_decay=0.75)
    assert {name: lr for name, (lr, _) in found.items()} == pytest.approx(
        {f"student.{name}": theirs[id(one)] for name, one in net.named_parameters()}
    )


def test_layers_may_be_said():
    found = settings(Encoder(), layer_decay=0.5, layers=["student.embedding", "student.blocks.{}", "*"])
    assert found["student.embedding.weight"][0] == 0.125
    assert found["student.blocks.1.0.weight"][0] == 0.5
    assert found["student.position"][0] == 1.0


def test_a_chain_within_a_chain_is_one_chain():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.BatchNorm1d(2), nn.Linear(2, 1))
    found = layers_of(net, named(net))
    assert [names[0] for names in found] == ["student.0.0.weight", "student.0.1.weight", "student.2.weight"]
    only = nn.Sequential(nn.LayerNorm(2))
    assert layers_of(only, named(only)) == [["student.0.weight", "student.0.bias"]]


def test_parameters_that_layers_share_are_in_the_first_of_them():
    net = Encoder()
    net.head.weight = net.embedding.weight
    found = settings(net, layer_decay=0.5)
    assert found["student.embedding.weight"][0] == 0.25  # a head with nothing but a bias is no layer
    assert "student.head.weight" not in found


def test_settings_by_pattern_go_over_layers_and_later_ones_over_earlier_ones():
    more = {"loss.fitnet.regressor.weight": nn.Parameter(torch.zeros(2, 2))}
    groups = {"loss": {"lr": 0.01}, "student": {"weight_decay": 0.25}, "student.blocks.0": {"lr": 4.0}}
    found = settings(Encoder(), more, layer_decay=0.5, groups=groups, no_decay=["*.bias"])
    assert found["loss.fitnet.regressor.weight"] == (0.01, 0.5)
    assert found["student.blocks.0.1.weight"] == (4.0, 0.25)
    assert found["student.blocks.0.1.bias"] == (4.0, 0.0)
    assert found["student.blocks.1.1.weight"] == (0.5, 0.25)


def test_the_first_group_has_the_rate_that_is_logged():
    groups = rules_of({"groups": {"student.position": {"lr": 9.0}}}).grouped(named(Encoder()), Encoder(), ADAMW)
    assert [group.get("lr") for group in groups] == [None, 9.0]
    groups = rules_of({"layer_decay": 0.5, "no_decay": "*.bias"}).grouped(named(Encoder()), Encoder(), ADAMW)
    given = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    assert given[:2] == [{}, {"weight_decay": 0.0}]  # of the last layer, whose rate is not multiplied
    assert all("lr" in one for one in given[2:])
    assert [len(one) for one in given[2:]] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"no_decay": ["student.hed"]},
            "optimizer.no_decay: no parameter that learns is called 'student.hed'; did you",
        ),
        ({"groups": {"*.gamma": {"lr": 1.0}}}, r"optimizer.groups: no parameter that learns is called '\*.gamma'"),
        ({"groups": {"student.head": {"momentum": 0.9}}}, "optimizer.groups.student.head.momentum: AdamW has no such"),
        ({"groups": {"student.head": {"lr": -1.0}}}, "optimizer.groups.student.head: Invalid learning rate: -1.0"),
        ({"groups": {"student.head": 3}}, "optimizer.groups must be"),
        ({"layer_decay": 1.5}, "optimizer.layer_decay must be a number above 0 and up to 1, or null; found 1.5"),
        ({"layers": ["student.head"]}, "for optimizer.layer_decay, which is null"),
        ({"layer_decay": 0.5, "layers": ["student.head"]}, "student.position belongs to none of"),
        ({"layer_decay": 0.5, "layers": ["student.blocs.{}", "*"]}, "Encoder has no 'student.blocs'; did you mean"),
        ({"no_decay": [3]}, "optimizer.no_decay must be a list of patterns of names; found 3"),
    ],
)
def test_what_fits_nothing_is_one_sentence(options, said):
    with pytest.raises(TutelageError, match=said):
        settings(Encoder(), **options)


def test_an_optimizer_without_weight_decay_says_so():
    with pytest.raises(TutelageError, match="Rprop has no weight_decay"):
        rules_of({"no_decay": "norm_and_bias"}).grouped(named(Encoder()), Encoder(), torch.optim.Rprop)


def test_what_another_stage_has_may_be_absent():
    rules = rules_of({"groups": {"loss.fitnet": {"lr": 0.1}}})
    assert len(rules.grouped(named(Encoder()), Encoder(), ADAMW, elsewhere=None)) == 1
    assert len(rules.grouped(named(Encoder()), Encoder(), ADAMW, elsewhere={"loss"})) == 1
    with pytest.raises(TutelageError, match=r"no parameter that learns is called 'loss\.fitnet'"):
        rules.grouped(named(Encoder()), Encoder(), ADAMW)


def test_names_are_those_of_signals():
    assert public_name("student.net.net.stage1.weight") == "student.stage1.weight"
    assert public_name("objective.terms.fitnet.loss.regressor.weight") == "loss.fitnet.regressor.weight"
    assert public_name("teaching.teacher.weights") == "teacher.weights"


def test_a_job_s_student_has_groups_and_its_control_too(compose):
    cfg = compose(*FITNET, "optimizer.groups={loss:{lr:0.5}}", "optimizer.no_decay=norm_and_bias")
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.dry_run(data)
    groups = module.parameter_groups()
    assert sum(len(group["params"]) for group in groups) == len([p for p in module.parameters() if p.requires_grad])
    assert {group.get("lr") for group in groups} == {None, 0.5}
    control = factory.supervised_module(factory.stage_config(cfg, "control"), "control", data, None)
    control.dry_run(data)
    assert [len(group["params"]) for group in control.parameter_groups()] == [2, 2]


def test_without_rules_the_parameters_are_one_list(compose):
    stage = factory.stage_config(compose(*TINY), "control")
    module = factory.supervised_module(stage, "control", factory.data(stage), None)
    assert module.rules is None
    assert all(isinstance(one, nn.Parameter) for one in module.parameter_groups())


def test_stages_have_rules_of_their_own(compose):
    cfg = compose(*TINY, "optimizer.groups={student.layers:{lr:0.1}}", "+stages.teacher.optimizer.no_decay=[*.bias]",
                  "+stages.teacher.optimizer.groups={student.layers:null}")  # fmt: skip
    assert optimizers.group_rules(factory.stage_config(cfg, "teacher")) == rules_of({"no_decay": ["*.bias"]})
    assert optimizers.group_rules(factory.stage_config(cfg, "student")).groups == {"student.layers": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.groups={student.nothing:{lr:1.0}}"], "no parameter that learns is called 'student.nothing'"),
        (["+stages.teacher.optimizer.no_decay=[student.nothing]"], "optimizer.no_decay: no parameter that learns"),
        (["optimizer.groups={techer:{lr:1.0}}"], "optimizer.groups: no parameter that learns is called 'techer'"),
        (["optimizer.layer_decay=0"], "optimizer.layer_decay must be a number above 0"),
        (["+stages.teacher.optimizer={_target_: torch.optim.LBFGS, _partial_: true, lr: 1.0, layer_decay: 0.5}"],
         "LBFGS doesn't support per-parameter options"),
        (["optimizer.layer_decay=0.5", "scheduler.interval=step", "scheduler.scheduler={_target_: "
          "torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 0.1, total_steps: null}"],
         "OneCycleLR gives every group of parameters the same learning rate"),
        (["+optimizer.no_decey=[a]"], "optimizer.no_decey: "),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_fit_is_refused_before_the_teacher_trains(compose, overrides, said):
    with pytest.raises(TutelageError, match=said):
        try_out(made := check(compose(*TINY, *overrides)), factory.data(made.student))


def test_a_stack_says_that_it_has_no_groups(compose):
    assert plan.refusal(plan_job(compose(*TINY))) == ""
    assert "optimizer.no_decay" in plan.refusal(plan_job(compose(*TINY, "optimizer.no_decay=norm_and_bias")))


def test_rules_that_change_nothing_leave_every_bit(compose, tmp_path):
    """A rate that is multiplied by 1 in groups is the rate of the whole list."""
    folders = []
    for name, overrides in {"plain": (), "groups": ("optimizer.groups={student:{weight_decay:0.01}}",)}.items():
        quiet = ("callbacks.progress=null", "logger=none", f"paths.artifacts={tmp_path}/{name}/shop")
        distill(check(compose(*FITNET, *quiet, *overrides)), tmp_path / name / "run")
        folders.append(weights(tmp_path / name / "run", tmp_path / name / "shop"))
    assert folders[0] == folders[1]
