"""DOT against loops over the published algorithm, in NumPy and with two backward passes."""

import copy
import re

import numpy as np
import pytest
import torch
from command import TINY

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.training.dot import DOT


def oracle(theta, task, taught, lr=0.1, mu=0.9, delta=0.075, decay=0.01):
    v = w = None
    for g, k in zip(task, taught, strict=True):
        both = g is not None and k is not None
        g = g if g is None else g + decay * theta
        k = k if k is None or both else k + decay * theta
        if g is not None:
            v = g if v is None else (mu - delta * both) * v + g
            theta = theta - lr * v
        if k is not None:
            w = k if w is None else (mu + delta * both) * w + k
            theta = theta - lr * w
    return theta


@pytest.mark.parametrize("reached", [(True, True), (True, False), (False, True)])
def test_the_published_steps(reached) -> None:
    chance = np.random.default_rng(0)
    weight = torch.nn.Parameter(torch.from_numpy(chance.normal(size=(2, 3))))
    start, gradients = weight.detach().numpy().copy(), chance.normal(size=(4, 2, 2, 3))
    optimizer = DOT([weight], lr=0.1, weight_decay=0.01)
    for task, taught in gradients:
        weight.grad = torch.from_numpy(task) if reached[0] else None
        optimizer.taught = {weight: torch.from_numpy(taught)} if reached[1] else {}
        optimizer.step()
    task, taught = ([pair[i] if reached[i] else None for pair in gradients] for i in (0, 1))
    np.testing.assert_allclose(weight.detach().numpy(), oracle(start, task, taught), rtol=1e-12)


def test_its_defaults_are_those_of_the_yaml(compose) -> None:
    node = compose(*TINY, "optimizer=dot").optimizer
    made = DOT([torch.nn.Parameter(torch.ones(1))]).defaults
    assert {name: node[name] for name in ("momentum", "delta", "weight_decay")} == {
        name: made[name] for name in ("momentum", "delta", "weight_decay")
    }


def test_a_weight_without_a_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    DOT([weight], weight_decay=0.01).step()
    assert torch.equal(weight, torch.ones(3))


@pytest.mark.parametrize(("momentum", "delta"), [(0.75, 0.25), (0.25, 0.5), (0.5, -0.1)])
def test_momenta_are_from_0_and_below_1(momentum, delta) -> None:
    with pytest.raises(TutelageError, match="momentum − delta of at least 0 and momentum"):
        DOT([torch.nn.Parameter(torch.ones(1))], momentum=momentum, delta=delta)
    DOT([torch.nn.Parameter(torch.ones(1))], lr=0.0, momentum=0.25, delta=0.25, weight_decay=0.0)


def test_without_teachers_or_without_a_difference_it_is_sgd() -> None:
    chance = torch.Generator().manual_seed(0)
    first = torch.nn.Parameter(torch.randn(3, 2, generator=chance, dtype=torch.float64))
    alone, apart, equal = (torch.nn.Parameter(first.detach().clone()) for _ in range(3))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    sgd, dot, same = torch.optim.SGD([first], **settings), DOT([alone], **settings), DOT([equal], delta=0.0, **settings)
    whole = torch.optim.SGD([apart], **settings)
    for _ in range(5):
        task, taught = torch.randn(2, 3, 2, generator=chance, dtype=torch.float64)
        first.grad, alone.grad, apart.grad, equal.grad = task, task.clone(), task + taught, task
        same.taught = {equal: taught}
        for optimizer in (sgd, dot, whole, same):
            optimizer.step()
    assert torch.equal(first, alone)
    torch.testing.assert_close(apart, equal, rtol=1e-12, atol=0)


def module_of(compose, *overrides):
    cfg = compose(
        *TINY,
        "optimizer=dot",
        "logger=none",
        "callbacks.progress=null",
        "trainer.max_epochs=1",
        "+trainer.limit_val_batches=1",
        *overrides,
    )
    del cfg.callbacks.best, cfg.callbacks.recovery
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    return stage, data, factory.distillation_module(stage, data, factory.sources(stage), None)


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|val_dataloader|validation_step).*")
def test_a_training_is_the_authors_loop(compose, tmp_path) -> None:
    """KD's backward and its buffers first, then the task's, with a hint whose regressor no label reaches."""
    torch.set_num_threads(1)
    stage, data, module = module_of(compose, "loss=fitnet", "loss.terms.hint.loss.rectify=false")
    module.dry_run(data)
    hand = copy.deepcopy(module)
    trainer = factory.trainer(stage, "student", tmp_path, tmp_path, len(data.train_dataloader()))
    trainer.fit(module, datamodule=data)
    learning = dict(hand.learning())
    buffers: dict[tuple[str, str], torch.Tensor] = {}
    hand.objective.on_epoch_start(0, 1)
    hand.train()
    for batch in data.train_dataloader():
        _, parts = hand.objective(hand.signals(data.on_after_batch_transfer(batch, 0)))
        scaled = {name: hand.objective.terms[name].scale * part for name, part in parts.items()}
        found = {
            kind: torch.autograd.grad(scaled[name], list(learning.values()), retain_graph=True, allow_unused=True)
            for kind, name in (("task", "hard"), ("taught", "hint"))
        }
        with torch.no_grad():
            for place, (name, x) in enumerate(learning.items()):
                grads = {kind: of[place] for kind, of in found.items() if of[place] is not None}
                before = x.clone()
                for kind, gradient in grads.items():
                    mu = 0.9 if len(grads) == 1 else 0.825 if kind == "task" else 0.975
                    if kind == next(iter(grads)):
                        gradient = gradient + 5e-4 * before
                    old = buffers.get((kind, name))
                    buffers[kind, name] = gradient if old is None else mu * old + gradient
                    x -= stage.optimizer.lr * buffers[kind, name]
    assert {name for kind, name in buffers if kind == "taught"} != {name for kind, name in buffers if kind == "task"}
    for name, x in module.learning().items():
        torch.testing.assert_close(x, learning[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("+trainer.gradient_clip_val=1.0",), "gradient_clip_val=1.0: it would clip one of them alone"),
        (("+trainer.accumulate_grad_batches=2",), "accumulate_grad_batches: one of them would be the last batch's"),
        (("trainer.precision=16-mixed",), "precision=16-mixed: one of them alone is scaled"),
        (("trainer=fsdp",), "trainer=fsdp: gradients are in shards"),
        (("stages.student.compile=true",), "a compiled network"),
        (("loss=data_free/dafl",), "a generator in turns"),
        (("optimizer.delta=0.2",), r"momentum \+ delta below 1"),
        (("optimizer.momentum=0.05",), "momentum − delta of at least 0"),
    ],
)
def test_what_it_can_not_be_combined_with(main, tmp_path, overrides, said) -> None:
    answer = main("plan", *TINY, "optimizer=dot", f"paths.outputs={tmp_path}", *overrides)
    assert answer.code != 0
    assert re.search(said, answer.message), answer.message
