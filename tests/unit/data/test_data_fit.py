"""The data under Lightning's Trainer: what a module sees, from the start and after a resumption."""

import json
import logging

import lightning as L
import pytest
import torch

from tutelage.data.augment import Shift
from tutelage.data.base import ImageData
from tutelage.data.examples import Examples
from tutelage.data.order import EpochOrder
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # Lightning 2.6.6's use
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
TRAIN, VAL, BATCH = 40, 12, 4
STEPS = TRAIN // BATCH


class Toy(ImageData):
    def __init__(self, **common):
        defaults = {"num_classes": 2, "input_shape": (1, 5, 5), "batch_size": BATCH, "val_size": VAL, "seed": 3}
        super().__init__(**(defaults | {"mean": [0.5], "std": [0.5], "augment": [Shift(1)]} | common))

    def load(self):
        images = torch.rand(TRAIN + VAL + 7, 1, 5, 5, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(len(images)) % 2
        train, test = slice(None, TRAIN + VAL), slice(TRAIN + VAL, None)
        return tuple(Examples(MemoryPixels(images[part]), labels[part]) for part in (train, test))


class Recorder(L.LightningModule):
    """Trains nothing of value and remembers every batch."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(25, 2)
        self.seen, self.evaluated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch["key"].tolist(), float(batch["input"].double().sum())))
        return torch.nn.functional.cross_entropy(self.net(batch["input"].flatten(1)), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.evaluated += batch["key"].tolist()

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(L.Callback):
    """Saves in one hook of one epoch (and batch)."""

    def __init__(self, path, hook, epoch, batch=None):
        self.path, self.epoch, self.batch = path, epoch, batch
        setattr(self, hook, self.save)

    def save(self, trainer, pl_module, *arguments):
        batch_idx = arguments[-1] if self.batch is not None else None
        if trainer.current_epoch == self.epoch and batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


def fit(data, callbacks=(), checkpoint=None, epochs=3, **arguments):
    module = Recorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), num_sanity_val_steps=0, **(quiet | arguments)
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    return module.seen, module


def expected_keys(data, epoch):
    order = EpochOrder(TRAIN, BATCH, data.seed, shuffle=True, drop_last=True)
    order.set_epoch(epoch)
    return [data.splits["train"].keys[indices].tolist() for _, indices in order]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_its_order_and_its_view(workers):
    data = Toy(num_workers=workers)
    seen, module = fit(data)
    assert [(epoch, batch) for epoch, batch, _, _ in seen] == [(e, b) for e in range(3) for b in range(STEPS)]
    assert [keys for _, _, keys, _ in seen] == [keys for epoch in range(3) for keys in expected_keys(data, epoch)]
    for epoch, batch, _, pixels in seen:
        order = EpochOrder(TRAIN, BATCH, data.seed, shuffle=True, drop_last=True)
        order.set_epoch(epoch)
        assert float(data.splits["train"][list(order)[batch]]["input"].double().sum()) == pixels
    assert module.evaluated == data.splits["val"].keys.tolist() * 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (0, 3), (1, 0), (1, STEPS - 1), (2, 5)])
def test_a_run_resumed_before_a_batch_sees_exactly_the_rest(tmp_path, workers, epoch, batch):
    path = tmp_path / "state.ckpt"
    whole, _ = fit(Toy(num_workers=workers), [SaveAt(path, "on_train_batch_start", epoch, batch)])
    rest, module = fit(Toy(num_workers=workers), checkpoint=path)
    assert rest == whole[epoch * STEPS + batch :]
    assert len(module.evaluated) == VAL * (3 - epoch)


def test_a_resumed_run_can_be_resumed(tmp_path):
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole, _ = fit(Toy(), [SaveAt(first, "on_train_batch_start", 1, 3)])
    fit(Toy(), [SaveAt(second, "on_train_batch_start", 1, 7)], first)
    assert fit(Toy(), checkpoint=second)[0] == whole[STEPS + 7 :]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "epoch", "batch", "left"),
    [
        ("on_train_batch_end", 1, 3, STEPS + 4),
        ("on_train_batch_end", 1, STEPS - 1, 2 * STEPS),
        ("on_validation_end", 1, None, 2 * STEPS),
        ("on_train_epoch_end", 1, None, 2 * STEPS),
    ],
)
def test_lightnings_own_places_to_save_resume_right_too(tmp_path, workers, hook, epoch, batch, left):
    path = tmp_path / "state.ckpt"
    whole, _ = fit(Toy(num_workers=workers), [SaveAt(path, hook, epoch, batch)])
    rest, _ = fit(Toy(num_workers=workers), checkpoint=path)
    assert [seen[2:] for seen in rest] == [seen[2:] for seen in whole[left:]]


def test_a_fit_that_goes_on_with_more_epochs(tmp_path):
    path = tmp_path / "state.ckpt"
    fit(Toy(), [SaveAt(path, "on_train_end", 2)], epochs=2)
    assert fit(Toy(), checkpoint=path)[0] == fit(Toy())[0][2 * STEPS :]


def test_a_state_of_other_data_is_refused(tmp_path):
    path = tmp_path / "state.ckpt"
    fit(Toy(), [SaveAt(path, "on_train_batch_start", 1, 7)])
    with pytest.raises(TutelageError, match="after batch 7 of epoch 1: an epoch of this data has 5 batches"):
        fit(Toy(batch_size=8), checkpoint=path)


def test_data_serve_one_trainer_after_another():
    data = Toy()
    assert fit(data)[0] == fit(data)[0] == fit(Toy())[0]


def test_the_test_set_comes_once():
    data, module = Toy(eval_batch_size=3), Recorder()
    L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(module, data, verbose=False)
    assert module.evaluated == list(range(7))


def test_overfitting_batches_is_refused():
    with pytest.raises(TutelageError, match="limit_train_batches"):
        fit(Toy(), overfit_batches=2)


def test_part_of_an_epoch():
    seen, _ = fit(Toy(), limit_train_batches=3)
    data = Toy()
    assert [keys for _, _, keys, _ in seen] == [keys for epoch in range(3) for keys in expected_keys(data, epoch)[:3]]


class Ranks(Recorder):
    """Writes what each rank has seen."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps([self.seen, self.evaluated]))


@pytest.mark.slow
@pytest.mark.parametrize("injects", [True, False])  # Lightning must leave the order alone, told so or not
@pytest.mark.long
def test_two_ranks_share_the_batches_of_one(tmp_path, injects):
    whole, alone = fit(Toy(), epochs=2)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",  # a fork inherits whatever earlier tests did to autograd's threads
        use_distributed_sampler=injects,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Ranks(tmp_path), datamodule=Toy())
    (seen0, val0), (seen1, val1) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert [a[2] + b[2] for a, b in zip(seen0, seen1, strict=True)] == [keys for _, _, keys, _ in whole]
    assert sorted(val0 + val1) == sorted(alone.evaluated)
    assert len(val0) == len(val1)
