"""Properties of every yaml of ``conf/model``, found by glob."""

import copy
import pickle
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from tutelage.models.tapped import Tapped

CONF = Path(__file__).parents[3] / "conf"
OTHERS = (
    "hf", "unet", "causal_lm", "causal_lm_small", "text_cnn", "bilstm", "text_cnn_words", "bilstm_words",
    "text_transformer", "minilm",
    "gcn", "graph_sage", "gat", "appnp", "strokes_cnn",
)  # fmt: skip
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in OTHERS)  # tests of their own
# Those with a _target_ of their own; the others are one of these in another size, and run only once.
FAMILIES = [name for name in NAMES if "_target_" in (CONF / "model" / f"{name}.yaml").read_text()]
LINEAR_STAGES = {
    "mobilenet_v2",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
}  # no activation behind a stage
LEAST_SIDE = {"lenet5": 12}

Network = tuple[str, nn.Module, dict[str, str], list[str]]


def config(name: str, shape: list[int], classes: int) -> DictConfig:
    for package in re.findall(r"pretrained: (\w+_model)", (CONF / "model" / f"{name}.yaml").read_text()):
        if find_spec(package) is None:
            pytest.skip(f"the weights of {name} are in the package {package}, which is not installed")
    if name == "timm" or name.startswith("efficientnet"):
        pytest.importorskip("timm", reason="needs the vision extra")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = [f"+data.input_shape={shape}", f"+data.num_classes={classes}"]
        return compose(overrides=[f"+model@network={name}", *values]).network


def make(name: str, shape: list[int], classes: int) -> tuple[nn.Module, dict[str, str], list[str]]:
    torch.manual_seed(0)
    tapped = instantiate(config(name, shape, classes))
    assert isinstance(tapped, Tapped)
    return tapped.net, tapped.taps, tapped.maps


def images(shape: list[int], count: int = 2) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def assert_as_close_as_float32(found: Tensor, expected: Tensor) -> None:
    """Untrained deep networks have large logits: the tolerance is one of the largest."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.fixture(params=NAMES, scope="module")
def network(request: pytest.FixtureRequest) -> Network:
    return request.param, *make(request.param, [3, 32, 32], 100)


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> Network:
    return request.param, *make(request.param, [3, 32, 32], 100)


def test_there_are_networks() -> None:
    assert {"dense", "resnet56", "wrn_40_2", "vgg13", "efficientnet_lite2"} <= set(NAMES) - set(FAMILIES)
    assert {"mlp", "cnn", "lenet5", "resnet20", "wrn_16_2", "vgg8", "mobilenet_v2", "timm"} <= set(FAMILIES)


def test_the_comment_gives_the_parameter_count(network: Network) -> None:
    name, net, *_ = network
    comment = (CONF / "model" / f"{name}.yaml").read_text().splitlines()[0]
    told = re.search(r"\(([\d,]+) parameters(?: at (\d)×(\d+)×(\d+), (\d+) classes)?", comment)
    if name in ("timm", "torchvision"):
        assert told is None
        return
    assert told is not None
    if told[5] is None:  # efficientnet_lite*: at ImageNet's thousand classes
        *size, classes = 3, 32, 32, 1000
    else:
        *size, classes = map(int, told.groups()[1:])
    if (size, classes) != ([3, 32, 32], 100):
        net, *_ = make(name, size, classes)
    assert sum(p.numel() for p in net.parameters()) == int(told[1].replace(",", ""))


@pytest.mark.parametrize("shape", [[1, 8, 8], [1, 28, 28], [2, 24, 40]])
@pytest.mark.parametrize("name", FAMILIES)
def test_learns_at_other_sizes_and_channels(name: str, shape: list[int]) -> None:
    if min(shape[1:]) < LEAST_SIDE.get(name, 0):
        pytest.skip(f"{name} takes images from {LEAST_SIDE[name]} pixels on")
    net, *_ = make(name, shape, 10)
    logits = net(images(shape))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([3, 7])).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def test_every_tap_gives_what_its_name_says(network: Network) -> None:
    name, net, taps, maps = network
    net.eval()
    norms = {tap: path for tap, path in taps.items() if path.endswith(".input")}  # what enters a normalisation
    assert all(isinstance(net.get_submodule(path.removesuffix(".input")), nn.BatchNorm2d) for path in norms.values())
    taps = {tap: path for tap, path in taps.items() if tap not in norms}
    seen: dict[str, tuple[Tensor, Tensor]] = {}  # as the tap has it, and as it was when it passed
    hooks = [
        net.get_submodule(path).register_forward_hook(
            lambda _, __, out, tap=tap: seen.update({tap: (out, out.clone())})
        )
        for tap, path in taps.items()
    ]
    with torch.no_grad():
        logits = net(images([3, 32, 32]))
    for hook in hooks:
        hook.remove()
    assert seen.keys() == taps.keys()
    assert all(torch.equal(after, before) for after, before in seen.values()), "a later layer works in place"

    signals = {tap: after for tap, (after, _) in seen.items()}
    if name == "soft_tree":  # no classifier reads an embedding: leaves answer by their paths
        assert set(taps) == {"paths", "leaves"}
        torch.testing.assert_close(signals["paths"].exp().sum(1), torch.ones(2))
        assert torch.equal(signals["leaves"], logits)
        return
    stages = [tap for tap in taps if re.fullmatch(r"stage\d+", tap)]
    assert stages == [f"stage{i}" for i in range(1, len(stages) + 1)]
    known = {f"{stage}{ending}" for stage in stages for ending in ("", "_preact", "_norm")}
    assert set(taps) - known - {"stem", "last"} == {"embedding", "classifier"}
    assert name.startswith(("mlp", "dense")) or len(maps) > 1
    assert set(maps) <= set(stages)
    assert maps == sorted(maps)
    if "stem" in taps:
        assert signals["stem"].shape[-1] >= signals[maps[0]].shape[-1]
    if "last" in taps:  # what is averaged for the classifier
        torch.testing.assert_close(signals["last"].mean((2, 3)), signals["embedding"])
    assert all(signals[stage].ndim == 4 for stage in stages)
    sides = [signals[stage].shape[-1] for stage in stages]
    assert sides == sorted(sides, reverse=True)
    for stage in stages:
        if f"{stage}_preact" in signals:
            preact = signals[f"{stage}_preact"]
            if not name.startswith("wrn"):  # whose stages end in a sum that the next one normalises
                assert torch.equal(signals[stage], preact if name in LINEAR_STAGES else preact.relu())
            assert bool((preact < 0).any())
        assert name in LINEAR_STAGES or bool((signals[stage] >= 0).all()) != name.startswith("wrn")
        if f"{stage}_norm" in signals:
            assert isinstance(net.get_submodule(taps[f"{stage}_norm"]), nn.BatchNorm2d)
            assert signals[f"{stage}_norm"].shape == signals[stage].shape

    embedding, classifier = signals["embedding"], net.get_submodule(taps["classifier"])
    assert isinstance(classifier, nn.Linear)
    assert embedding.shape == (2, classifier.in_features)
    torch.testing.assert_close(F.linear(embedding, classifier.weight, classifier.bias), logits)
    assert torch.equal(signals["classifier"], logits)


def test_evaluation_is_deterministic_and_survives_copies(family: Network) -> None:
    _, net, *_ = family
    x = images([3, 32, 32])
    with torch.no_grad():
        logits = net.eval()(x)
        assert torch.equal(net(x), logits)
        assert torch.equal(copy.deepcopy(net)(x), logits)
        assert torch.equal(pickle.loads(pickle.dumps(net))(x), logits)
        one_by_one = torch.cat([net(row[None]) for row in x])
    assert_as_close_as_float32(one_by_one, logits)


def test_channels_last_computes_the_same(family: Network) -> None:
    _, net, *_ = family
    x = images([3, 32, 32])
    with torch.no_grad():
        expected = net.eval()(x)
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)
        found = last(x.contiguous(memory_format=torch.channels_last))
    assert_as_close_as_float32(found, expected)


def test_same_chance_same_first_weights(family: Network) -> None:
    name, net, *_ = family
    again, *_ = make(name, [3, 32, 32], 100)
    first = dict(net.named_parameters())
    assert all(torch.equal(first[key], parameter) for key, parameter in again.named_parameters())
