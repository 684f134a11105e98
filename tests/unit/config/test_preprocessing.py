"""``teacher.adapter=own``: a library's network gets the images that it was trained on."""

import logging

import pytest
import torch
from hydra.utils import instantiate

from tutelage.config import factory
from tutelage.config.preprocessing import settle_adapters
from tutelage.errors import TutelageError

PIXELS = torch.rand(2, 1, 8, 8)
OWN = "+teacher.adapter=own"


def settled(compose, *overrides):
    cfg = compose(*overrides)
    settle_adapters(cfg)
    return cfg


def images_of(cfg):
    """Returns a network's input for PIXELS, which the data normalise with their mean and std."""
    inputs = (PIXELS - cfg.data.mean[0]) / cfg.data.std[0]
    return instantiate(cfg.teacher.adapter)(inputs)


def test_timm_s_own_size_mean_and_standard_deviation(compose, caplog):
    pytest.importorskip("timm")
    caplog.set_level(logging.INFO)
    cfg = settled(compose, "model@teacher=timm", "teacher.net.name=tf_efficientnet_lite0", OWN)
    found = images_of(cfg)
    assert found.shape == (2, 1, 224, 224)
    torch.testing.assert_close(found.mean((1, 2, 3)), (PIXELS.mean((1, 2, 3)) - 0.5) / 0.5, atol=0.02, rtol=0)
    assert "teacher: images are converted to the network's own: 8×8 to 224×224 (bicubic); mean [0.3053] to [0.5]" in (
        caplog.text
    )
    assert factory.network(cfg.teacher, 0).adapter is not None
    assert cfg.sources.teacher.net.adapter == cfg.teacher.adapter


def test_torchvision_s_own_for_grey_images_is_the_mean_over_colours(compose):
    pytest.importorskip("torchvision")
    cfg = settled(compose, "model@teacher=torchvision", "data.mean=[0]", "data.std=[1]", OWN)
    resize, renormalise = cfg.teacher.adapter._args_
    assert resize == {"_target_": "tutelage.models.adapter.Resize", "size": [224, 224], "mode": "bilinear"}
    assert list(renormalise.to_mean) == pytest.approx([(0.485 + 0.456 + 0.406) / 3])


def test_an_image_processor_of_transformers_in_colour_for_grey_images(compose, tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ViTImageProcessor(
        size={"height": 16, "width": 12}, resample=3, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.25]
    ).save_pretrained(tmp_path)
    config = transformers.ViTConfig(
        image_size=[16, 12],
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    cfg = settled(
        compose,
        "model@teacher=hf",
        "teacher.auto=AutoModelForImageClassification",
        f"teacher.pretrained={tmp_path}",
        OWN,
    )
    found = images_of(cfg)
    expected = torch.nn.functional.interpolate(PIXELS, (16, 12), mode="bicubic", antialias=True, align_corners=False)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.5, 0.25])
    torch.testing.assert_close(found, (expected - mean[:, None, None]) / std[:, None, None], atol=1e-4, rtol=1e-4)
    assert factory.network(cfg.teacher, 0)((PIXELS - 0.3053) / 0.376)["logits"].shape == (2, 10)


def test_a_network_of_nobody_s_says_nothing_of_its_images(compose, tmp_path):
    with pytest.raises(
        TutelageError, match=r"teacher\.adapter=own: only networks of timm, torchvision and transformers"
    ):
        settled(compose, OWN)
    with pytest.raises(TutelageError, match=r"adapter=own: model=hf without pretrained has no image processor"):
        settled(compose, "model@teacher=hf", "teacher.config={model_type: vit}", OWN)


def test_a_pretrained_network_without_an_adapter_is_told_of(compose, caplog):
    pytest.importorskip("timm")
    caplog.set_level(logging.INFO)
    name = ("model@student=timm", "student.net.name=tf_efficientnet_lite0")
    assert "adapter" not in settled(compose, *name, "student.net.pretrained=somewhere").student
    assert "student was trained on images of another kind; +student.adapter=own converts them: 8×8 to" in caplog.text
    caplog.clear()
    settled(compose, *name)
    assert not caplog.text


def test_images_that_are_the_network_s_own_need_no_adapter(compose):
    pytest.importorskip("timm")
    same = ("data.input_shape=[3,224,224]", "data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]")
    cfg = settled(compose, "model@teacher=timm", "teacher.net.name=tf_efficientnet_lite0", *same, OWN)
    assert cfg.teacher.adapter is None
