"""data=streamed: training sets that are read as they come, in our order, without more than a buffer in memory."""

import gc
import io
import json
import pickle
import random
import tarfile
import weakref

import lightning as L
import numpy as np
import own_data
import pytest
import torch
from own_data import Pictures
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from tutelage.data.dataset import DatasetData
from tutelage.data.order import EpochOrder
from tutelage.data.shards import Shards
from tutelage.data.streamed import StreamedData
from tutelage.data.streams import Cursor
from tutelage.errors import TutelageError

IMAGES, LABELS = own_data.digits("train")


class Digits(IterableDataset):
    """600 digits in their order, split among workers as PyTorch's documentation says."""

    classes = Pictures.classes

    def __init__(self, count=600, shuffled=None, label=True, own=False):
        self.count, self.shuffled, self.label, self.own = count, shuffled, label, own

    def __iter__(self):
        rows = list(range(self.count))
        if self.shuffled == "global":
            random.shuffle(rows)
        if self.shuffled == "own":
            random.Random().shuffle(rows)
        info = get_worker_info()
        for row in rows if info is None else rows[info.id :: info.num_workers]:
            sample = {"image": IMAGES[row], "label": int(LABELS[row]), "id": 1000 + row}
            yield sample if self.label or row < 300 else {"image": IMAGES[row], "id": row}


class Listed(Dataset):
    """A map-style set of such samples."""

    def __init__(self, part):
        self.images, self.targets = own_data.digits(part)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return {"image": self.images[row], "label": int(self.targets[row]), "id": row}


class Sized(Digits):
    def __len__(self):
        return self.count


def data(train=None, **arguments):
    common = {"val": Listed("val"), "test": Listed("test"), "batch_size": 50, "seed": 0}
    given = {"train": Sized() if train is None else train, "buffer": 64, "check": 40, "num_classes": 10}
    return StreamedData(**(common | given | arguments))


def epoch(made, number=0):
    loader = made.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def keys(batches):
    return torch.cat([batch["key"] for batch in batches]).tolist()


def same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_epoch_has_every_sample_once_shuffled_with_its_place_as_key():
    made = data()
    made.setup()
    batches, other = epoch(made), epoch(made, 1)
    first = 40 + 300  # behind the ones that were looked at and validation
    assert sorted(keys(batches)) == list(range(first, first + 600))
    assert keys(batches) != sorted(keys(batches))
    assert keys(batches) != keys(other)
    for batch in batches:
        rows = batch["key"] - first
        assert torch.equal(batch["input"], torch.from_numpy(IMAGES[rows])[:, None].float() / 255)
        assert batch["label"].tolist() == LABELS[rows].tolist()
    assert (made.num_classes, made.class_names[1], made.input_shape) == (10, "one", (1, 8, 8))


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    same(epoch(data(), 1), epoch(data(), 1))
    assert keys(epoch(data(seed=1))) != keys(epoch(data()))
    whole = data()
    whole.setup()
    same(epoch(whole.with_seed(1)), epoch(data(seed=1)))


def test_epochs_of_some_examples_go_on_in_the_stream():
    made = data(Digits(), examples=250, buffer=1)
    found = [keys(epoch(made, number)) for number in range(3)]
    assert found[1] == list(range(340 + 250, 340 + 500))
    assert found[2] == [*range(340 + 500, 340 + 600), *range(340, 340 + 150)]  # the next pass


def test_resumed_in_the_middle_of_an_epoch():
    made = data(Digits(), examples=250)
    loader = made.train_dataloader()
    loader.load_state_dict({"epoch": 3, "batch": 2})
    same(list(loader), epoch(data(Digits(), examples=250), 3)[2:])


def test_workers_and_ranks_share_the_batches_without_duplicates_though_the_set_splits_itself():
    whole = epoch(data(), 1)
    same(epoch(data(num_workers=2), 1), whole)
    made, parts = data(), []
    made.setup()
    for rank in (0, 1):
        train, order = made._epoch()
        sampler: EpochOrder = order(size=len(train), seed=0, rank=rank, world_size=2)
        sampler.set_epoch(1)
        parts.append([train[request] for request in sampler])
    for one, other, both in zip(*parts, whole, strict=True):
        assert torch.equal(torch.cat([one["input"], other["input"]]), both["input"])


def test_what_a_stream_draws_from_global_generators_is_a_function_of_seed_and_pass():
    state = random.getstate()
    one, again = data(Sized(shuffled="global")), data(Sized(shuffled="global"))
    same(epoch(one, 1), epoch(again, 1))
    assert random.getstate() == state
    assert torch.equal(epoch(data(Sized(shuffled="global"), buffer=1), 1)[0]["key"], torch.arange(340, 390))
    assert not len(one.splits["train"].keys)  # places mean other samples in each pass


def test_a_stream_that_nobody_can_seed_is_told_of_and_goes_on(caplog):
    made = data(Sized(shuffled="own"))
    assert len(epoch(made)) == 12
    assert "a run can't be resumed to the bit" in caplog.text
    caplog.clear()
    data().setup()
    assert "resumed" not in caplog.text


def test_keys_of_the_samples_own():
    made = data(fields={"input": "image", "label": "label", "key": "id"})
    assert sorted(keys(epoch(made))) == list(range(1000, 1600))
    with pytest.raises(TutelageError, match=r"data.fields.key=image is to be a whole number"):
        epoch(data(fields={"input": "image", "label": "label", "key": "image"}))


def test_keys_are_known_where_an_epoch_is_a_pass_of_known_length():
    for made, known in ((data(), 600), (data(Digits(), length=600), 600), (data(Digits(), examples=600), 0)):
        train = made.splits["train"]
        assert len(train.keys) == known
        assert len(train) == 600
    train = data().splits["train"]
    assert data().sample(3)["key"].tolist() == train.keys[:3].tolist()
    for view in (0, 1):  # as a cache of signals reads them
        found = train[view, torch.arange(100, 200)]
        assert torch.equal(found["key"], train.keys[100:200])
        assert found["label"].tolist() == LABELS[100:200].tolist()


def test_a_transform_draws_by_seed_view_and_key():
    noise = [lambda image: torch.from_numpy(image)[None].float() + torch.rand(())]
    given = {"train_transform": noise, "views": 2}
    one = {key: x for b in epoch(data(**given), 1) for key, x in zip(b["key"].tolist(), b["input"], strict=True)}
    two = {key: x for b in epoch(data(**given), 3) for key, x in zip(b["key"].tolist(), b["input"], strict=True)}
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one[340], epoch(data(**given, buffer=1))[0]["input"][0])


class Loaders(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Digits(), batch_size=7, collate_fn=own_data.stack)

    def val_dataloader(self):
        return DataLoader(Pictures("val"), collate_fn=own_data.stack)

    def test_dataloader(self):
        return DataLoader(Pictures("test"))


def test_a_lightning_data_module_streams():
    class Tuples(Digits):
        def __iter__(self):
            return ((Image.fromarray(one["image"]), one["label"]) for one in super().__iter__())

    module = Loaders()
    module.train_dataloader = None
    Loaders.train_dataloader = lambda self: DataLoader(Tuples(), batch_size=7, collate_fn=own_data.stack)
    made = StreamedData(datamodule=module.__class__(), length=600, batch_size=50, seed=0)
    assert made.name == "Loaders"
    assert epoch(made)[0]["input"].shape == (50, 1, 8, 8)
    assert set(made.shared) == {"train", "val", "test", "datamodule"}
    again = StreamedData(**made.shared, length=600, batch_size=50, seed=0)
    same(epoch(again, 1), epoch(made, 1))


# -- memory -----------------------------------------------------------------------------------------------------------


class Big:
    """A sample that can be counted while it lives."""

    def __init__(self):
        self.pixels = torch.zeros(1, 64, 64)

    def as_dict(self):
        return {"input": self.pixels, "label": 0}


def counting(alive, count):
    """Yields samples of which ``alive`` holds those that live."""
    for _ in range(count):
        big = torch.zeros(1, 64, 64)
        alive.add(big)
        yield {"input": big, "label": 0}
        del big


class Endless(IterableDataset):
    def __init__(self, alive, count):
        self.alive, self.count = alive, count

    def __iter__(self):
        yield from counting(self.alive, self.count)


class ByIndex(Dataset):
    """A set larger than memory, with its labels in a column."""

    targets = (0, 1) * 1000

    def __init__(self, alive):
        self.alive = alive

    def __len__(self):
        return 2000

    def __getitem__(self, row):
        [sample] = counting(self.alive, 1)
        return {**sample, "label": self.targets[row]}


class Alive:
    """Tensors that live, by weak references, as they have no hash of their own that a WeakSet could compare."""

    def __init__(self):
        self.found, self.most = {}, 0

    def add(self, tensor):
        name = id(tensor)
        self.found[name] = weakref.ref(tensor, lambda _: self.found.pop(name, None))
        self.most = max(self.most, len(self.found))


def test_no_more_than_the_buffer_and_a_batch_of_samples_lives():
    alive = Alive()
    made = data(Endless(alive, 5000), length=5000, buffer=50, check=8, batch_size=20, mean=[0.0], std=[1.0],
                val=Zeros(), test=Zeros(), fields=None)  # fmt: skip
    loader = made.train_dataloader()
    gc.collect()
    alive.most = 0
    seen = sum(len(batch["key"]) for batch in loader)
    assert seen == 5000  # 80 MB
    assert alive.most <= 50 + 20 + 8 + 3  # the buffer, a batch, what was looked at


class Zeros(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, row):
        return {"input": torch.zeros(1, 64, 64), "label": row % 2}


def test_of_a_map_style_set_no_sample_stays():
    alive = Alive()
    made = DatasetData(train=ByIndex(alive), val=Zeros(), test=Zeros(), batch_size=20, seed=0, check=8)
    made.setup()
    gc.collect()
    assert alive.most <= 64
    alive.most = 0
    assert sum(len(batch["key"]) for batch in made.train_dataloader()) == 2000
    assert alive.most <= 2 * 20 + 1


# -- shards -----------------------------------------------------------------------------------------------------------


def png(row):
    file = io.BytesIO()
    Image.fromarray(IMAGES[row]).save(file, "png")
    return file.getvalue()


def write_tar(path, rows):
    with tarfile.open(path, "w") as archive:
        for row in rows:
            more = json.dumps({"ink": float(IMAGES[row].mean())}).encode()
            for ending, content in (("png", png(row)), ("cls", str(LABELS[row]).encode()), ("json", more)):
                member = tarfile.TarInfo(f"{row:05d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_npz(path, rows):
    np.savez(path, png=IMAGES[rows], cls=LABELS[rows])


def write_parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"png": [{"bytes": png(row)} for row in rows], "cls": LABELS[rows]})
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(("ending", "write"), [("tar", write_tar), ("npz", write_npz), ("parquet", write_parquet)])
def test_shards_are_the_same_set(tmp_path, ending, write):
    if ending == "parquet":
        pytest.importorskip("pyarrow.parquet")
    for number, rows in enumerate(np.arange(600).reshape(3, 200)):
        write(tmp_path / f"train-{number}.{ending}", rows)
    shards = Shards(str(tmp_path / f"train-*.{ending}"), length=600)
    write(tmp_path / f"val.{ending}", np.arange(300))
    val = Shards(str(tmp_path / f"val.{ending}"))  # read into memory
    made = data(shards, val=val, test=val, fields={"input": "png", "label": "cls"})
    for one, other in zip(epoch(made, 1), epoch(data(), 1), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("input", "label", "key"))
    path = tmp_path / f"train-1.{ending}"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TutelageError, match=f"train-1.{ending}"):
        list(Shards(str(tmp_path / f"train-*.{ending}")))


def test_one_shard_is_open_at_a_time_and_their_order_is_a_function_of_seed_and_pass(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.own").write_text("")
    opened = []

    def read(path):
        opened.append(path.stem)
        yield from ({"input": torch.zeros(2), "label": int(path.stem)} for _ in range(4))

    shards = Shards(str(tmp_path / "*.own"), read, shuffle=True)
    iterator = iter(shards)
    [next(iterator) for _ in range(5)]
    assert len(opened) == 2
    orders = []
    for number in (0, 0, 1):
        cursor = Cursor("data.train", shards, 3, 1, 20)
        orders.append([one.sample["label"] for one in cursor.take(range(20 * number, 20 * number + 20))])
    assert orders[0] == orders[1] != orders[2]


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "arguments", "said"),
    [
        (None, {"val": None}, r"data\.val is needed: it can't be drawn from a stream"),
        (None, {"test": None}, r"data\.test is needed"),
        (Digits(), {}, r"data\.examples is needed.*no len\(\); or data\.length"),
        (None, {"examples": 0}, r"data\.examples must be a whole number of at least 1; found 0"),
        (None, {"buffer": 0}, r"data\.buffer must be"),
        (None, {"labelled": 10}, r"data\.labelled needs all training examples"),
        (None, {"classes": [1]}, r"data\.classes needs all"),
        (None, {"repeat": 2}, r"data\.repeat needs all"),
        (None, {"sampler": object()}, r"data\.sampler needs all"),
        (None, {"check": None}, r"data\.check=null would read the whole stream"),
        (Shards, {}, r"files"),
        (iter([]), {}, r"expected an IterableDataset.*from its beginning"),
        (Sized(0), {}, r"gives no sample"),
        (5, {}, r"found int"),
    ],
)
def test_bad_input_is_one_sentence(train, arguments, said):
    with pytest.raises((TutelageError, TypeError), match=said):
        data(train, **arguments).setup()


def test_classes_must_be_said_where_the_stream_does_not():
    class Nameless(Sized):
        classes = None

    with pytest.raises(TutelageError, match=r"data\.num_classes is needed.*those of a stream"):
        data(Nameless(), num_classes=None)


def test_what_only_shows_later_names_the_sample():
    with pytest.raises(TutelageError, match=r"data.train: pass 0 over Digits has 600 samples; expected 700"):
        epoch(data(Digits(), length=700))
    with pytest.raises(TutelageError, match=r"data.train: sample 3\d\d has no label"):
        epoch(data(Sized(label=False)))
    with pytest.raises(TutelageError, match=r"data.train: sample \d+: its label is 9; expected 0 to 8"):
        epoch(data(Listed9(), num_classes=9, val=Zeros9(), test=Zeros9()))

    class Failing(Sized):
        def __iter__(self):
            yield from ({"input": torch.zeros(2), "label": 0} for _ in range(100))
            raise OSError("no more")

    with pytest.raises(TutelageError, match=r"data.train can't be read on: OSError: no more"):
        epoch(data(Failing(), val=Pairs(), test=Pairs()))


class Pairs(Zeros):
    def __getitem__(self, row):
        return {"input": torch.zeros(2), "label": row % 2}


class Zeros9(Pairs):
    pass


class Listed9(Sized):
    classes = None

    def __iter__(self):
        yield from ({"input": torch.zeros(2), "label": 9 if row > 400 else 0} for row in range(600))


def test_a_reading_in_progress_is_not_sent_to_a_worker():
    cursor = Cursor("data.train", Sized(), 0, 16, 600)
    first = [one.place for one in cursor.take(range(5))]
    again = pickle.loads(pickle.dumps(cursor))
    assert [one.place for one in again.take(range(5))] == first
