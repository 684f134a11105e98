"""Generator and student in turn: rounds against a loop by hand, and what is refused."""

import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from alternated import CNNS, EPOCHS, ROUNDS, SMALL, ByHand, Made, make, step
from command import PAIR
from omegaconf import OmegaConf
from torch import Tensor, nn

from tutelage.config import factory
from tutelage.config.turns import check_turns, training_data
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.models.generators import ImageGenerator
from tutelage.objective import Objective, Term
from tutelage.sources.peers import Peers
from tutelage.training.alternating import AlternatingModule, _held
from tutelage.training.turns import Turn, Turns


@pytest.fixture
def made(compose) -> Callable[..., Made]:
    """``made(loss, *overrides)`` → module with an untrained teacher, trainer of 2 · 2 rounds in float64, data."""
    return partial(make, compose)


def noise() -> Tensor:
    return torch.randn(6, 100, dtype=torch.float64)


def test_dafl_is_the_authors_loop(made):
    """One batch and one backward of both losses, as in their code; entropy with log10."""
    eighth = "stages.student.turns.terms.activation.weight=0.125"  # 0.1 is another number in float32
    module, trainer, data = made("dafl", "stages.student.turns.optimizer.lr=0.02", eighth)
    trainer.log_every_n_steps = 1
    hand = ByHand(module)
    trainer.fit(module, datamodule=data)
    of_generator = torch.optim.Adam(hand.generator.parameters(), lr=0.02)
    for _ in hand.rounds():
        hand.kept.clear()
        images = hand.generator(noise())
        z = hand.teacher(images)
        p = z.softmax(1).mean(0)
        loss = F.cross_entropy(z, z.argmax(1)) + 5 * (p * p.log10()).sum() - 0.125 * hand.kept[0].abs().mean()
        q = hand.student(images.detach()).log_softmax(1)
        loss = loss + F.kl_div(q, z.detach().softmax(1), reduction="sum") / 6
        of_generator.zero_grad()
        hand.student_optimizer.zero_grad()
        loss.backward()
        of_generator.step()
        hand.student_optimizer.step()
    hand.same(module)
    assert trainer.global_step == EPOCHS * ROUNDS
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    assert logged["train/learning_rate"] == pytest.approx(1e-3)
    assert logged["train/generator/learning_rate"] == pytest.approx(0.02)
    assert logged["train/loss"] == pytest.approx(logged["train/soft"])
    assert logged["train/generator/loss"] == pytest.approx(
        sum(term.scale * logged[f"train/generator/{name}"] for name, term in module.generator_objective.terms.items())
    )
    assert all(parameter.grad is None for parameter in module.sources()["teacher"].net.parameters())


def test_dfad_is_the_authors_loop(made):
    module, trainer, data = made("dfad")
    hand = ByHand(module)
    trainer.fit(module, datamodule=data)
    of_generator = torch.optim.Adam(hand.generator.parameters(), lr=1e-3)
    for _ in hand.rounds():
        for _ in range(5):
            images = hand.generator(noise()).detach()
            step(hand.student_optimizer, F.l1_loss(hand.student(images), hand.teacher(images).detach()))
        images = hand.generator(noise())
        step(of_generator, -F.l1_loss(hand.student(images), hand.teacher(images)))
    hand.same(module)
    assert trainer.global_step == EPOCHS * ROUNDS


def test_zskt_is_the_authors_loop(made):
    """The same random numbers for one step of the generator and ten of the student; gradients of norm 5 at most."""
    module, trainer, data = made("zskt", "loss.attention=0", "scheduler=cosine", "scheduler.interval=step")
    hand = ByHand(module)
    trainer.fit(module, datamodule=data)
    of_generator = torch.optim.Adam(hand.generator.parameters(), lr=1e-3)
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(one, EPOCHS * ROUNDS)
        for one in (of_generator, hand.student_optimizer)
    ]

    def clipped(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 5)
        optimizer.step()

    for _ in hand.rounds():
        z = noise()
        images = hand.generator(z)
        q, p = hand.teacher(images).softmax(1), hand.student(images).log_softmax(1)
        clipped(of_generator, -F.kl_div(p, q, reduction="none").mean())
        images = hand.generator(z).detach()
        q = hand.teacher(images).softmax(1).detach()
        for _ in range(10):
            p = hand.student(images).log_softmax(1)
            clipped(hand.student_optimizer, F.kl_div(p, q, reduction="none").mean())
        for schedule in schedules:
            schedule.step()
    hand.same(module)
    assert [one.param_groups[0]["lr"] for one in trainer.optimizers] == pytest.approx([0, 0], abs=1e-12)


def test_dfq_gives_images_the_statistics_of_the_teachers_layers(made):
    """Of what enters each BatchNorm layer, while the teacher stays in eval."""
    taps = [f"+teacher.taps.norm{i}=stage{i}.preact.-1.input" for i in (1, 2)]
    nets = ("model@teacher=vgg4", "model@student=cnn", "student.net.dropout=0", *taps, "loss.norms=[norm1,norm2]")
    module, trainer, data = made("dfq", "stages.student.turns.generator.latents=100", nets=nets)
    hand = ByHand(module)
    layers = [one for one in hand.teacher.modules() if isinstance(one, nn.BatchNorm2d)][:2]
    seen: dict[nn.Module, Tensor] = {}
    for layer in layers:
        layer.register_forward_hook(lambda one, given, _: seen.update({one: given[0]}))
    trainer.fit(module, datamodule=data)
    of_generator = torch.optim.Adam(hand.generator.parameters(), lr=1e-4, betas=(0.5, 0.999))
    for _ in hand.rounds():
        images = hand.generator(noise())
        z, p = hand.teacher(images), hand.student(images).log_softmax(1)
        mean = z.softmax(1).mean(0)
        loss = 0.5 * F.cross_entropy(z, z.argmax(1)) + 20 * (mean * mean.log()).sum()
        loss = loss - 0.5 * F.kl_div(p, z.softmax(1), reduction="batchmean")
        for layer in layers:
            loss = loss + (seen[layer].mean((0, 2, 3)) - layer.running_mean).norm()
            loss = loss + (seen[layer].var((0, 2, 3), unbiased=False) - layer.running_var).norm()
        step(of_generator, loss)
        for _ in range(5):
            images = hand.generator(noise()).detach()
            q, p = (hand.teacher(images).detach() / 20).softmax(1), (hand.student(images) / 20).log_softmax(1)
            step(hand.student_optimizer, 400 * F.kl_div(p, q, reduction="batchmean"))
    hand.same(module)


def test_a_noise_student_has_one_optimizer(made):
    module, trainer, data = made("noise")
    trainer.fit(module, datamodule=data)
    assert len(trainer.optimizers) == 1


def test_rounds_are_logged_by_player_as_often_as_it_is_said():
    logged = {}
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr) for lr in (0.5, 0.25, 0.125)]
    trainer = SimpleNamespace(log_every_n_steps=3, optimizers=optimizers)
    part = torch.tensor(2.0, requires_grad=True)
    losses = {player: (torch.tensor(value), {"soft": part}) for player, value in (("generator", 1.0), ("student", 4.0))}
    for at in range(1, 5):
        module = SimpleNamespace(
            global_step=at, trainer=trainer,
            log_dict=lambda named, at=at, **how: logged.update({(at, *named): (float(sum(named.values())), how)}),
            log=lambda name, value, at=at: logged.update({(at, name): value}),
        )  # fmt: skip
        AlternatingModule._log_round(module, losses, 6)
    how = {"prog_bar": True, "batch_size": 6}
    assert logged == {
        (3, "train/generator/loss", "train/generator/soft"): (3.0, how),
        (3, "train/generator/learning_rate"): 0.25,
        (3, "train/loss", "train/soft"): (6.0, how),
        (3, "train/learning_rate"): 0.5,
    }


def test_what_fixed_sources_say_of_the_same_images_is_kept_and_of_those_that_learn_is_not(made):
    module, _, _ = made("dfad")
    peers = Peers([copy.deepcopy(module.student.net)])
    terms = {
        "soft": Term(nn.MSELoss(), {"input": "student.logits"}, {"target": "teacher.logits"}),
        "peer": Term(nn.MSELoss(), {"input": "student.logits"}, {"target": "peers.logits@0"}),
    }
    sources = {"teacher": module.sources()["teacher"], "peers": peers}
    own = AlternatingModule(
        module.turns, sources, student=module.student, objective=Objective(terms), optimizer=module.optimizer
    )
    signals = own._signals("student", own._made(own._draw(6), {"key": torch.arange(6)}))
    assert signals.keys() == {"batch", "student", "teacher", "peers"}
    kept = own._kept(signals)
    assert kept.keys() == {"teacher"}
    assert own._signals("student", signals["batch"], kept)["teacher"] is kept["teacher"]  # not computed again


def test_a_student_that_is_held_has_no_gradient_and_learns_again_whatever_happens():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ZeroDivisionError), _held(net):  # noqa: PT012
        assert not any(parameter.requires_grad for parameter in net.parameters())
        raise ZeroDivisionError
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, True, False, False]


def test_no_training_image_is_read(made):
    module, _, data = made("dfad")
    train = data.splits["train"]
    assert train[0, torch.arange(6)]["input"].count_nonzero() == 0
    assert set(train.labels.tolist()) == {-100}
    module.dry_run(data)
    assert len(data.train_dataloader()) == ROUNDS
    assert data.labelled() is None
    assert data.splits["val"].labels.min() >= 0


def test_a_students_statistics_stay_while_a_generator_steps_in_eval(made):
    module, trainer, data = made("dfad", nets=("model@teacher=cnn", "model@student=resnet8x4"))
    order = [Turn("student"), Turn("generator", student="eval")]
    own = Turns(module.generator, order, ROUNDS, module.turns.terms, module.turns.optimizer)
    module.turns, module._last_turn = own, 0
    seen = [one for one in module.student.modules() if isinstance(one, nn.BatchNorm2d)]
    trainer.fit(module, datamodule=data)
    assert seen[0].num_batches_tracked == EPOCHS * ROUNDS


# -- what is refused ---------------------------------------------------------------------------------------------------


REFUSED = {
    r"stages.student.turns.rounds must be a whole number ≥ 1; found 0": {"stages.student.turns.rounds": 0},
    r"trainer.devices=2 .* which ranks can't share": {"trainer.devices": 2},
    r"trainer.precision=16-mixed scales losses": {"trainer.precision": "16-mixed"},
    r"gradient_clip_val=1 does not reach .* stages.student.turns.student_clip": {"trainer.gradient_clip_val": 1},
    r"accumulate_grad_batches=2 .* larger data.batch_size": {"trainer.accumulate_grad_batches": 2},
    r"sources.teacher: signals of generated images can't be cached": {
        "sources.teacher._target_": "tutelage.sources.cached.Cached"
    },
    r"can't be combined with assistants, generations": {"generations": 1},
    r"ReduceLROnPlateau follows validation": {
        "scheduler.scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
    },
    r"takes no 'widht'; did you mean 'width'": {"stages.student.turns.generator.widht": 3},
    r"optimizer: LBFGS runs a step several times": {"optimizer._target_": "torch.optim.LBFGS"},
    r"stages.student.turns has no _target_": {"stages.student.turns": {"rounds": 3}},
}


def test_what_cannot_be_combined_is_refused_with_the_key(compose):
    composed = compose(*CNNS, "loss=data_free/dfad")
    check_turns(composed, factory.stage_config(composed, "student"))
    for said, changes in REFUSED.items():
        cfg = copy.deepcopy(composed)
        OmegaConf.set_struct(cfg, False)
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, merge=False)
        with pytest.raises(TutelageError, match=said):
            check_turns(cfg, factory.stage_config(cfg, "student"))


def test_the_config_of_a_job_is_checked_for_turns(compose):
    with pytest.raises(TutelageError, match="which ranks can't share"):
        check(compose(*PAIR, "loss=data_free/dfad", "trainer.devices=2"))


@pytest.mark.parametrize(
    ("loss", "overrides", "said"),
    [
        ("dfad", ("loss.alpha=0.5",), r"reads batch.soft_label, which images that a generator makes don't have"),
        ("dafl", ("stages.student.turns.generator.input_shape=[1,12,12]",), r"makes images \[1, 12, 12\]; .* \[1, 8,"),
        ("dafl", ("loss.tap=embeding",), r"no tap 'embeding'"),
    ],
)  # fmt: skip
def test_what_a_dry_run_shows_is_refused(made, loss, overrides, said):
    with pytest.raises(TutelageError, match=said):  # noqa: PT012
        module, _, data = made(loss, *overrides)
        module.dry_run(data)


def test_losses_that_learn_of_training_examples_are_refused(compose):
    cfg = compose(*CNNS, *SMALL, "loss=[data_free/dfad,ft]", "loss.alpha=1")
    stage = factory.stage_config(cfg, "student")
    data = training_data(stage, factory.data(stage))
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    with pytest.raises(TutelageError, match=r"FT stores or learns something of the training examples"):
        module.dry_run(data)


def test_a_generator_that_would_learn_nothing_is_refused(made):
    module, _, data = made("dfad")
    [term] = module.generator_objective.terms.values()
    term.inputs, term.targets = {"student": "student.logits"}, {"teacher": "teacher.logits"}
    term.inputs, term.targets = {}, {**term.inputs, **term.targets}
    with pytest.raises(TutelageError, match=r"the generator would learn nothing from 'adversarial'"):
        module.dry_run(data)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"player": "teacher"}, "player must be one of generator, student; found 'teacher'"),
        ({"player": "student", "steps": 0}, "steps must be a whole number of at least 1; found 0"),
        ({"player": "student", "images": "old"}, "images must be one of new, again, last, pool; found 'old'"),
        ({"player": "generator", "images": "last"}, "not last"),
    ],
)
def test_a_bad_turn_is_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        Turn(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"order": [Turn("generator")]}, "the student has no turn"),
        ({"order": [Turn("student", images="again")]}, "the first turn of a round needs images=new"),
        ({"order": [Turn("generator"), Turn("student")]}, "needs turns.terms and turns.optimizer"),
        ({"order": [Turn("student")], "clip": 0}, "turns.clip must be above 0"),
        ({"order": [Turn("student")], "interval": "round"}, "turns.interval must be epoch or step"),
    ],
)
def test_bad_turns_are_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        Turns(ImageGenerator([1, 8, 8], width=2), rounds=1, **arguments)
