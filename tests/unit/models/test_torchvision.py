"""torchvision's classifiers by name."""

import pytest
import torch

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.models.torchvision import create, taps

pytest.importorskip("torchvision", reason="needs the vision extra")


def test_taps_are_the_stages_of_a_network():
    assert taps("resnet18", attention="layer3.0") == {
        "stage1": "layer1", "stage2": "layer2", "stage3": "layer3", "stage4": "layer4",
        "embedding": "fc.embedding", "classifier": "fc", "attention": "layer3.0",
    }  # fmt: skip
    found = taps("vit_b_16")
    assert found["stage12"] == "encoder.layers.encoder_layer_11"
    assert found["classifier"] == "heads.head"


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "squeezenet1_1"]
)
def test_every_tap_of_a_network_for_grey_images_and_own_classes(name):
    net = Tapped(create(name, 7, 1), taps(name)).eval()
    net.register_taps(net.taps)
    with torch.no_grad():
        found = net(torch.randn(2, 1, 64, 64))
    assert found["logits"].shape == (2, 7)
    sides = [found[f"stage{number}"].shape[-1] for number in range(1, 4)]
    assert sides == sorted(sides, reverse=True)
    assert 13 <= sides[0] <= 16
    if "classifier" in net.taps:
        assert torch.equal(found["classifier"], found["logits"])
        assert found["embedding"].ndim == 2


def test_training_gives_logits_where_torchvision_gives_auxiliary_ones_too():
    made = create("googlenet", 7, 3, init_weights=False).train()
    assert made(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_weights_of_a_file_lose_their_classifier_and_their_colours(tmp_path, caplog):
    theirs = create("resnet18", 5, 3)
    torch.save({"model": theirs.state_dict(), "ema": {}}, tmp_path / "w.pth")
    net = create("resnet18", 7, 1, pretrained=str(tmp_path / "w.pth"))
    assert "w.pth has 5 classes, the network 7: its classifier is not loaded" in caplog.text
    assert torch.equal(net.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(net.conv1(grey), theirs.conv1(grey.expand(-1, 3, -1, -1)))
    same = create("resnet18", 5, 3, pretrained=str(tmp_path / "w.pth"))
    assert all(torch.equal(one, theirs.state_dict()[name]) for name, one in same.state_dict().items())


def test_what_torchvision_does_not_have_or_take_is_one_sentence(tmp_path):
    with pytest.raises(TutelageError, match=r"has no classifier 'resnet81'; did you mean 'resnet18'"):
        create("resnet81", 7, 3)
    with pytest.raises(TutelageError, match=r"torchvision resnet18: .*dropout_everywhere"):
        create("resnet18", 7, 3, dropout_everywhere=0.1)
    torch.save(create("resnet34", 7, 3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(TutelageError, match=r"w\.pth does not fit ResNet"):
        create("resnet18", 7, 3, pretrained=str(tmp_path / "w.pth"))


def test_a_teacher_of_the_command_line_is_named(compose):
    cfg = compose("model@teacher=torchvision", "teacher.net.name=mobilenet_v3_small")
    assert factory.network(cfg.teacher, 0)(torch.randn(2, 1, 32, 32))["logits"].shape == (2, 10)
