"""Rounds that make images for a pool: against loops by hand, their state, and what is refused."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from alternated import EPOCHS, ROUNDS, ByHand, Made, make, step
from torch import Tensor, nn

from tutelage.config import factory
from tutelage.data.augment import Flip, Shift
from tutelage.data.crops import RandomResizedCrop
from tutelage.errors import TutelageError
from tutelage.models.generators import ImageGenerator
from tutelage.objective import Term
from tutelage.training.pool import ImagePool
from tutelage.training.starts import FOMAML, Fresh, Reptile, Start
from tutelage.training.synthesis import Synthesis
from tutelage.training.turns import Turn, Turns

TAPS = [f"+teacher.taps.norm{i}=stage{i}.preact.-1.input" for i in (1, 2)]
NETS = ("model@teacher=vgg4", "model@student=cnn", "student.net.dropout=0", *TAPS, "loss.norms=[norm1,norm2]")
KEY = "stages.student.turns"
FEW = (
    f"{KEY}.order.0.steps=3", f"{KEY}.order.1.steps=2", f"{KEY}.synthesis.images=7", f"{KEY}.generator.latents=5",
    "loss.shift=1",
)  # fmt: skip

BEFORE_NORM = ("linear.bias", "maps.conv1.bias", "maps.conv2.bias")  # 67 times a rounding error is a step of Adam's


@pytest.fixture
def made(compose) -> Callable[..., Made]:
    """``made(loss, *overrides)`` → module with an untrained teacher, trainer of 2 · 2 rounds in float64, data."""
    return partial(make, compose, nets=NETS)


class Pooled(ByHand):
    """A loop with a pool, view by view and term by term."""

    def __init__(self, module, data):
        super().__init__(module)
        self.layers = [one for one in self.teacher.modules() if isinstance(one, nn.BatchNorm2d)][:2]
        self.seen: dict[nn.Module, Tensor] = {}
        for layer in self.layers:
            layer.register_forward_hook(lambda one, given, _: self.seen.update({one: given[0]}))
        own = module.turns.synthesis
        self.mean, self.std = (
            torch.tensor(list(one), dtype=torch.float64)[:, None, None] for one in (own.mean, own.std)
        )
        self.images = torch.zeros(0, *data.input_shape)

    def pixels(self, generator, z):
        return generator(z) * self.std + self.mean

    def view(self, pixels, *steps):
        for one in steps:
            pixels = one(pixels, torch.rand(len(pixels), one.draws, dtype=torch.float32))
        return (pixels - self.mean) / self.std

    def found(self, images):
        """Logits of both, mean and variance of what enters each layer, and means of each image."""
        self.seen.clear()
        z = self.teacher(images)
        inputs = [self.seen[layer] for layer in self.layers]
        moments = [(x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) for x in inputs]
        return z, moments, torch.cat([x.mean((2, 3)) for x in inputs], 1)

    def apart(self, moments):
        pairs = zip(moments, self.layers, strict=True)
        return sum((m - one.running_mean).norm() + (v - one.running_var).norm() for (m, v), one in pairs)

    def agreed(self, images, z):
        s = self.student(images)
        each = F.kl_div(s.log_softmax(1), z.softmax(1), reduction="none").sum(1)
        return (each * (s.argmax(1) == z.argmax(1))).mean()

    def keep(self, pixels):
        self.images = torch.cat([self.images, (pixels.detach() * 255).round().float()])

    def teach(self, steps, *views):
        self.student.train()
        order: list[int] = []
        for _ in range(steps):
            while len(order) < 6:
                order += torch.randperm(len(self.images)).tolist()
            rows, order = order[:6], order[6:]
            images = self.view(self.images[rows].double() / 255, *views)
            q, p = (self.teacher(images).detach() / 20).softmax(1), (self.student(images) / 20).log_softmax(1)
            step(self.student_optimizer, 400 * F.kl_div(p, q, reduction="batchmean"))


def test_cmi_is_the_authors_loop(made):
    """A new generator in each round, a bank after the first; wholes and parts, the best step's images."""
    powers = (  # exact in float32
        f"{KEY}.terms.contrast.weight=0.75", f"{KEY}.terms.contrast.loss.temperature=0.125",
        f"{KEY}.terms.one_hot.weight=0.5",
    )  # fmt: skip
    module, trainer, data = made("cmi", *FEW, *powers)
    whole, part = (Shift(1), Flip(0.5)), (RandomResizedCrop([0.25, 1.0]), Flip(0.5))
    trainer.fit(module, datamodule=data)
    again, _, _ = made("cmi", *FEW, *powers)
    hand = Pooled(again, data)
    again.dry_run(data)
    head = copy.deepcopy(again.generator_objective.terms["contrast"].loss.head).double()
    head_optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    bank = torch.zeros(0, 2, 1).double()
    torch.set_default_dtype(torch.float64)
    try:
        for number, _ in enumerate(hand.rounds()):
            z, y = torch.randn(7, 5).requires_grad_(), torch.randint(10, (7,))
            for one in hand.generator.modules():
                if hasattr(one, "weight") and one.weight is not None:
                    nn.init.normal_(one.weight, float(isinstance(one, nn.BatchNorm2d)), 0.02)
                    nn.init.zeros_(one.bias)
            optimizer = torch.optim.Adam([*hand.generator.parameters(), z], lr=1e-3, betas=(0.5, 0.999))
            hand.student.eval()
            least = math.inf
            for _ in range(3):
                pixels = hand.pixels(hand.generator, z)
                images, local = hand.view(pixels, *whole), hand.view(pixels, *part)
                logits, moments, g = hand.found(images)
                loss = hand.apart(moments) + 0.5 * F.cross_entropy(logits, y) - 0.5 * hand.agreed(images, logits)
                _, _, f = hand.found(local)
                chosen = bank[torch.randperm(len(bank))]  # all of them: their order changes no sum
                u, v = (
                    head(torch.cat([a, b])) if number else head(a) for a, b in ((f, chosen[:, 0]), (g, chosen[:, -1]))
                )
                u, v = u / u.norm(dim=1, keepdim=True), (v / v.norm(dim=1, keepdim=True)).detach()
                each = -(u @ v.T * 8).log_softmax(1).diagonal()
                loss = loss + 0.75 * (each[:7].mean() + (each[7:].mean() if number else 0))
                if loss.item() < least:
                    least, best, features = loss.item(), pixels, torch.stack([f, g], 1).detach()
                for one in (optimizer, head_optimizer):
                    one.zero_grad()
                loss.backward()
                optimizer.step()
                head_optimizer.step()
            hand.keep(best)
            bank = torch.cat([bank, features]) if number else features
            hand.teach(2, *whole)
    finally:
        torch.set_default_dtype(torch.float32)
    hand.same(module)
    assert torch.equal(module.pool.images.float(), hand.images)
    assert len(module.pool.images) == EPOCHS * ROUNDS * 7
    assert torch.allclose(module.generator_objective.terms["contrast"].loss.bank, bank.flatten(1))
    assert all(parameter.grad is None for parameter in module.sources()["teacher"].net.parameters())


def averaged(earlier, moments):
    return [(0.75 * a + 0.25 * c, 0.75 * b + 0.25 * d) for (a, b), (c, d) in zip(earlier, moments, strict=True)]


@pytest.mark.parametrize("kind", ["FOMAML", pytest.param("Reptile", marks=pytest.mark.long)])
def test_fast_meta_is_the_authors_loop(made, kind):
    """Two rounds ahead; the generator learns from its copy, which the adversarial term joins with the second round."""
    starts = (f"{KEY}.synthesis.start._target_=tutelage.training.starts.{kind}", "loss.steps=3", "loss.lr=0.0078125")
    order = f"{KEY}.order.1.steps=2", f"{KEY}.synthesis.images=7", f"{KEY}.generator.latents=5", "loss.shift=1"
    weights = (
        f"{KEY}.terms.norms.loss.momentum=0.75",
        f"{KEY}.terms.one_hot.weight=0.5",
        f"{KEY}.terms.adversarial.weight=-1",
    )
    ahead = ("loss.ahead=2", f"{KEY}.synthesis.reset=5")
    module, trainer, data = made("fast_meta", *starts, *order, *weights, *ahead)
    hand, views = Pooled(module, data), (Shift(1), Flip(0.5))
    trainer.fit(module, datamodule=data)
    shared = torch.optim.Adam(hand.generator.parameters(), lr=3 * 0.0078125, betas=(0.5, 0.999))
    smooth, made_so_far = None, 0
    torch.set_default_dtype(torch.float64)
    try:
        for number, _ in enumerate(hand.rounds()):
            for _ in range(3 if number == 0 else 1):
                made_so_far += 1
                if made_so_far == 5:
                    for one in (hand.generator.linear, hand.generator.maps.norm):
                        nn.init.normal_(one.weight, 0, 0.02)
                        nn.init.zeros_(one.bias)
                z, y = torch.randn(7, 5).requires_grad_(), torch.randint(10, (7,))
                shared.zero_grad()
                own = copy.deepcopy(hand.generator)
                groups = [{"params": own.parameters()}, {"params": [z], "lr": 0.01}]
                optimizer = torch.optim.Adam(groups, lr=0.0078125, betas=(0.5, 0.999))
                hand.student.eval()
                least, sums = math.inf, [torch.zeros_like(p) for p in own.parameters()]
                for _ in range(3):
                    pixels = hand.pixels(own, z)
                    images = hand.view(pixels, *views)
                    logits, moments, _ = hand.found(images)
                    last = [tuple(x.detach() for x in pair) for pair in moments]
                    moments = moments if smooth is None else averaged(smooth, moments)
                    loss = 10 * hand.apart(moments) + 0.5 * F.cross_entropy(logits, y)
                    if made_so_far >= 2:
                        loss = loss - hand.agreed(images, logits)
                    if loss.item() < least:
                        least, best = loss.item(), pixels
                    step(optimizer, loss)
                    sums = [a + p.grad for a, p in zip(sums, own.parameters(), strict=True)]
                smooth = last if smooth is None else averaged(smooth, last)
                for p, q, total in zip(hand.generator.parameters(), own.parameters(), sums, strict=True):
                    p.grad = total if kind == "FOMAML" else 67 * (p - q).detach()
                shared.step()
                hand.keep(best)
            hand.teach(2, *views)
    finally:
        torch.set_default_dtype(torch.float32)
    hand.same(module, but=BEFORE_NORM)
    assert torch.equal(module.pool.images.float(), hand.images)
    assert len(module.pool.images) == (EPOCHS * ROUNDS + 2) * 7
    assert trainer.global_step == EPOCHS * ROUNDS


@pytest.mark.long
@pytest.mark.parametrize("loss", ["cmi", "fast_meta"])
def test_a_training_goes_on_from_its_state_to_the_same_bits(made, tmp_path, loss):
    """Pool, bank, averages, generator and all optimizers are part of the state."""
    found = []
    for parts in ([EPOCHS], [1, EPOCHS]):
        state = None
        for epochs in parts:
            module, trainer, data = made(loss, *FEW, precision="32-true")  # float64 is loaded into float32
            trainer.fit_loop.max_epochs = epochs
            trainer.fit(module, datamodule=data, ckpt_path=state, weights_only=True)
            state = tmp_path / "state.ckpt"
            trainer.save_checkpoint(state)
        found.append(torch.load(state, weights_only=True))
    whole, resumed = (
        torch.utils._pytree.tree_flatten_with_path([one["state_dict"], one["optimizer_states"]])[0] for one in found
    )
    for (path, one), (_, other) in zip(whole, resumed, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, path


def test_schedules_of_the_generator_count_rounds(made, monkeypatch):
    module, trainer, data = made("cmi", *FEW, f"{KEY}.synthesis.ahead=3")
    heard = []
    monkeypatch.setattr(module.generator_objective, "on_epoch_start", lambda *given: heard.append(given))
    trainer.fit(module, datamodule=data)
    rounds = EPOCHS * ROUNDS + 3
    assert heard == [(number, rounds) for number in range(rounds)]


def test_a_shared_generator_goes_on_without_an_optimizer_of_its_own(made):
    module, trainer, data = made(
        "fast_meta",
        *FEW,
        f"{KEY}.synthesis.start._target_=tutelage.training.starts.Start",
        f"~{KEY}.synthesis.start.optimizer",
    )
    before = copy.deepcopy(module.generator.state_dict())
    trainer.fit(module, datamodule=data)
    assert len(trainer.optimizers) == 1
    assert not torch.equal(module.generator.linear.weight.float(), before["linear.weight"])


def test_a_pool_shows_all_images_before_one_again_and_keeps_its_state():
    pool = ImagePool()
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 2, 2) / 255
    pool.add(images[:2])
    pool.add(images[2:])
    torch.manual_seed(0)
    seen = [int(x * 255 + 0.5) for batch in pool.batches(3, 5) for x in batch[:, 0, 0, 0].tolist()]
    assert [sorted(seen[i : i + 5]) for i in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    other = ImagePool()
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.images, pool.images)
    assert torch.equal(other.newest(2), images[-2:])
    assert len(other.newest(9)) == 5
    assert list(pool.batches(3, 0)) == []


def test_a_generator_is_drawn_anew():
    net = ImageGenerator([1, 8, 8], latents=500, width=32, last="affine")
    torch.manual_seed(0)
    net.reset()
    assert net.linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert net.maps.norm1.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert all(
        float(one.bias.detach().abs().sum()) == 0 for one in net.modules() if getattr(one, "bias", None) is not None
    )
    kept = net.maps.conv1.weight.clone()
    net.reset_first()
    assert net.maps.norm.weight.abs().max().item() < 0.1
    assert torch.equal(net.maps.conv1.weight, kept)


# -- what is refused ---------------------------------------------------------------------------------------------------


def synthesis(**changes):
    given = {
        "start": Start(),
        "optimizer": torch.optim.Adam,
        "classes": 3,
        "mean": [0],
        "std": [1],
        "views": {"input": []},
    }
    return Synthesis(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": None}, "turns.synthesis.classes must be a whole number ≥ 2; found None"),
        ({"images": 0}, "turns.synthesis.images must be a whole number ≥ 1; found 0"),
        ({"ahead": -1}, "turns.synthesis.ahead must be a whole number ≥ 0; found -1"),
        ({"reset": True}, "turns.synthesis.reset must be a whole number ≥ 1; found True"),
        ({"latent_lr": 0}, "turns.synthesis.latent_lr must be above 0, or null; found 0"),
        ({"views": {"part": []}}, r"turns.synthesis.views needs one named input; found \['part'\]"),
        ({"views": {"input": [Fresh()]}}, "turns.synthesis.views.input: Fresh is not a tutelage.data.augment.Step"),
    ],
)
def test_a_bad_synthesis_is_refused(changes, said):
    with pytest.raises(TutelageError, match=said):
        synthesis(**changes)


MAKES, LEARNS = Turn("generator", images="pool"), Turn("student", images="pool")
TERM = {"one": Term(nn.CrossEntropyLoss(), {"input": "teacher.logits"}, {"target": "batch.wanted"})}
LEARNED = {"one": Term(nn.Linear(2, 1), {"input": "teacher.logits"})}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"order": [MAKES, LEARNS]}, "without it none; found .* and no synthesis"),
        ({"order": [MAKES, Turn("student")], "synthesis": synthesis()}, "all turns have images=pool"),
        ({"order": [LEARNS, MAKES], "synthesis": synthesis()}, "the pool is empty at first"),
        ({"order": [MAKES], "synthesis": synthesis()}, "the student has no turn"),
        ({"order": [MAKES, LEARNS], "synthesis": synthesis()}, "needs turns.terms"),
        ({"order": [MAKES, LEARNS], "synthesis": synthesis(), "terms": TERM, "clip": 1}, "turns.clip: gradients in"),
        ({"order": [MAKES, LEARNS], "synthesis": synthesis(), "terms": LEARNED}, "turns.optimizer: a term of the gen"),
    ],
)
def test_bad_turns_of_a_pool_are_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        Turns(ImageGenerator([1, 8, 8], width=2), rounds=1, **arguments)


def test_a_factor_of_reptile_is_checked():
    with pytest.raises(TutelageError, match=r"Reptile.factor must be above 0; found 0"):
        Reptile(torch.optim.Adam, 0)
    assert FOMAML(torch.optim.Adam).optimizer is torch.optim.Adam


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("loss.terms.soft.inputs.student=batch.keys",), "reads batch.keys, which images that a generator makes"),
        (("sources.part.of=teachr",), "another view is of 'teachr', which is not there; did you mean 'teacher'"),
        (("sources.part.reads=prt",), "a batch has no view 'prt'; did you mean 'part'"),
    ],
)
def test_what_a_dry_run_shows_is_refused(made, overrides, said):
    with pytest.raises(TutelageError, match=said):  # noqa: PT012
        module, _, data = made("cmi", *FEW, *overrides)
        module.dry_run(data)


def test_costs_of_rounds_are_counted(compose):
    cfg = compose(*NETS, "loss=data_free/cmi", *FEW, f"{KEY}.synthesis.images=12", "data.batch_size=6")
    found = factory.turns(factory.stage_config(cfg, "student")).passes(6)
    assert found == {"generator": 18, "student": 18, "teacher": 26}  # 2 · 3 steps, of the teacher on two views
