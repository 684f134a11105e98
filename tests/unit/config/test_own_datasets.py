"""Datasets of one's own are made once a job, whatever asks for them."""

import lightning
import own_data
import pytest
from own_data import Pictures
from torch.utils.data import DataLoader

from tutelage.config import factory
from tutelage.config.own_datasets import job_datasets


class Counted(Pictures):
    """Counts how often it is made, and its samples read for their labels."""

    made = 0

    def __init__(self, part="train"):
        super().__init__(part)
        del self.targets
        Counted.made += 1
        self.labels_read = own_data.digits(part)[1]

    def __getitem__(self, row):
        return self.images[row], int(self.labels_read[row])


@pytest.mark.parametrize("kind", ["dataset", "datamodule"])
def test_a_dataset_of_one_s_own_is_made_once_a_job(compose, monkeypatch, kind):
    monkeypatch.setattr(own_data, "Counted", Counted, raising=False)
    monkeypatch.setattr(own_data, "CountedModule", CountedModule, raising=False)
    monkeypatch.setattr(Counted, "made", 0)
    given = {
        "dataset": "data.train={_target_: own_data.Counted}",
        "datamodule": "data.datamodule={_target_: own_data.CountedModule}",
    }
    job_datasets.forget()
    cfg = compose(f"data={kind}", given[kind], "data.val_size=0.25")
    assert (cfg.data.num_classes, list(cfg.data.input_shape)) == (10, [1, 8, 8])
    one = factory.data(factory.stage_config(cfg, "teacher"))
    other = factory.data(factory.stage_config(compose(f"data={kind}", given[kind], "data.labelled=100"), "student"))
    assert Counted.made == 1
    assert other.name == one.name
    assert (len(one.splits["val"]), len(other.splits["val"])) == (135, 54)
    assert one.parts["train"].labels is other.parts["train"].labels
    job_datasets.forget()  # the next job
    factory.data(factory.stage_config(cfg, "teacher"))
    assert Counted.made == 2


class CountedModule(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Counted())


def test_data_that_make_their_own_datasets_are_made_again(compose):
    node = compose("data=diabetes").data
    first, again = (job_datasets.make(node) for _ in range(2))
    assert first.fingerprint() == again.fingerprint()
