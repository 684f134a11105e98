"""Steps of several batches are steps of one large batch, however unevenly tokens are spread over batches and ranks."""

import itertools
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing
from accumulated import rank, trained
from corpora import TINY, write_answers
from texts import reviews, tsv

from tutelage.data.module import Data
from tutelage.objective import Objective
from tutelage.training.module import SupervisedModule

pytest.importorskip("tokenizers", reason="needs the text extra")
QUIET = ("logger=none", "callbacks.progress=null", "trainer.accelerator=cpu", "optimizer=sgd", "optimizer.lr=0.5")
TERMS = ("loss=[reverse_kl,dkd]", "loss.where=batch.answer", "loss.alpha=0.5", "trainer.max_epochs=1")
ACCUMULATED = ("data.batch_size=4", "+trainer.accumulate_grad_batches=2")


@pytest.fixture
def config(compose, tmp_path):
    root = write_answers(tmp_path / "answers.jsonl")

    def make(*overrides):
        cfg = compose(*TINY, f"data.root={root}", "data.block=60", *TERMS, *QUIET, *overrides)
        del cfg.callbacks.best, cfg.callbacks.recovery
        return cfg

    return make


def distance(found, expected):
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def test_two_accumulated_batches_are_one_of_double_size(config, tmp_path, monkeypatch):
    whole = trained(config("data.batch_size=8"), tmp_path)
    assert distance(trained(config(*ACCUMULATED), tmp_path), whole) < 2e-6
    monkeypatch.setattr(Objective, "look_ahead", lambda *_: None)  # a mean of the means over each batch's tokens
    assert distance(trained(config(*ACCUMULATED), tmp_path), whole) > 1e-3


def test_two_accumulated_batches_of_texts_of_all_lengths_are_one(compose, tmp_path, monkeypatch):
    """States count by token, and the texts of a batch of 8 are padded further than those of its halves."""
    net = ("net.width=8", "net.layers=1", "net.heads=2", "net.dropout=0")
    job = (
        "data=text", f"data.train={tsv(tmp_path / 'a.tsv', reviews(56))}", "data.val_size=12", "data.test_size=12",
        "model@teacher=text_transformer", "model@student=text_transformer", "loss=text/distilbert",
        *(f"{role}.{one}" for role in ("teacher", "student") for one in net),
        "data.sampler=null", "trainer.max_epochs=1", *QUIET, "optimizer.lr=0.01",
    )  # fmt: skip

    def weights(*overrides):
        cfg = compose(*job, *overrides)
        del cfg.callbacks.best, cfg.callbacks.recovery
        return trained(cfg, tmp_path)

    whole = weights("data.batch_size=8")
    assert distance(weights(*ACCUMULATED), whole) < 2e-6
    monkeypatch.setattr(Objective, "look_ahead", lambda *_: None)
    assert distance(weights(*ACCUMULATED), whole) > 1e-5


def test_without_masks_nothing_is_looked_at(compose, tmp_path, monkeypatch):
    monkeypatch.setattr(Data, "upcoming", lambda *_: pytest.fail("it was"))
    pair = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[8]", "student.net.widths=[8]")
    few = (
        "data.batch_size=64",
        "trainer.max_epochs=1",
        "+trainer.limit_train_batches=4",
        "+trainer.limit_val_batches=1",
    )
    cfg = compose(*pair, *few, *QUIET, "+trainer.accumulate_grad_batches=2")
    del cfg.callbacks.best, cfg.callbacks.recovery
    assert trained(cfg, tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*Grad strides do not match.*")
def test_two_ranks_that_accumulate_are_one_process_with_one_batch(config, tmp_path):
    both = {
        "ranks": config("data.batch_size=8", "trainer=ddp", *QUIET, "trainer.max_epochs=1"),
        "ranks, accumulated": config(*ACCUMULATED, "trainer=ddp", *QUIET, "trainer.max_epochs=1"),
    }
    torch.multiprocessing.spawn(rank, (str(tmp_path), both), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    whole = trained(config("data.batch_size=8"), tmp_path)
    for name in both:
        assert distance(found[name], whole) < 2e-6, name


class Upcoming(Data):
    """Names batches by (epoch, number), and notes where it was asked to begin."""

    as_set = checked = load = None

    def __init__(self, chance):
        self.asked = chance

    def upcoming(self, epoch, batch):
        self.asked.append((epoch, batch))
        return (lambda number=number: (epoch, number) for number in itertools.count(batch))


def test_the_other_batches_of_a_step_are_told_and_read_on_from_where_the_last_ones_ended():
    told, asked = [], []
    objective = SimpleNamespace(chooses_rows=True, look_ahead=lambda batches, device: told.append(batches))
    trainer = SimpleNamespace(datamodule=Upcoming(asked), num_training_batches=7, accumulate_grad_batches=3)
    module = SimpleNamespace(
        trainer=trainer,
        objective=objective,
        device=torch.device("cpu"),
        seed=0,
        global_rank=0,
        current_epoch=0,
        _ahead=None,
    )
    module._look_ahead = partial(SupervisedModule._look_ahead, module)

    def start(epoch, number):
        module.current_epoch = epoch
        SupervisedModule.on_train_batch_start(module, (epoch, number), number)

    for epoch in (0, 1):
        for number in range(7):
            start(epoch, number)
    steps = [[(epoch, n) for n in own] for epoch in (0, 1) for own in ((0, 1, 2), (3, 4, 5), (6,))]
    assert told == steps
    assert asked == [(0, 0), (1, 0)]
    start(1, 3)  # after a resume
    assert (told[-1], asked[-1]) == ([(1, 3), (1, 4), (1, 5)], (1, 3))
    trainer.accumulate_grad_batches = 1  # a schedule of accumulation may end
    start(1, 4)
    start(1, 5)
    assert told[-1] == []
    assert len(told) == 8  # told once
    trainer.accumulate_grad_batches = 2
    objective.chooses_rows = False
    start(1, 6)
    assert (told[-1], len(told)) == ([], 9)
    assert len(asked) == 3
