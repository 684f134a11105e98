import base64
import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tutelage.checkpoints.weights import load_into, save_network
from tutelage.data.digits import Digits
from tutelage.models.soft_tree import SoftTree
from tutelage.report import tree
from tutelage.report.tree_picture import Ring, grey, way

SVG = "{http://www.w3.org/2000/svg}"
DATA = {
    "_target_": "tutelage.data.digits.Digits", "num_classes": 10, "input_shape": [1, 8, 8], "batch_size": 32,
    "val_size": 600, "test_size": 597, "seed": 0, "mean": [0.3053], "std": [0.376],
}  # fmt: skip
NETWORK = {
    "_target_": "tutelage.models.soft_tree.SoftTree", "input_shape": [1, 8, 8], "num_classes": 10, "depth": 3,
}  # fmt: skip


def saved(folder: Path, **network: object) -> Path:
    torch.manual_seed(0)
    net = SoftTree([1, 8, 8], 10, depth=3)
    with torch.no_grad():
        net.filters.weight.mul_(8)
    about = {"stage": "student", "seed": 0, "network": {**NETWORK, **network}, "data": DATA}
    path = folder / "last.safetensors"
    save_network(net, path, about)
    return path


def test_a_way_leads_from_the_root_to_the_leaf() -> None:
    assert way(0, 8) == [0, 1, 3, 7]
    assert way(5, 8) == [0, 2, 5, 12]
    assert way(1, 2) == [0, 2]


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_filters_do_not_overlap_and_nothing_leaves_the_page(depth: int) -> None:
    ring = Ring(depth)
    nodes = range(2**depth - 1)
    places = torch.tensor([ring.at(node) for node in nodes])
    sides = torch.tensor([ring.sides[(node + 1).bit_length() - 1] for node in nodes])
    apart = (places[:, None] - places[None]).abs().amax(2)
    needed = (sides[:, None] + sides[None]) / 2
    assert bool((apart + 1e-3 >= needed).fill_diagonal_(True).all())
    rim = torch.tensor([ring.at(2**depth - 1 + leaf, 80) for leaf in range(2**depth)])
    assert bool((rim[:, 0] >= 0).all() and (rim[:, 0] <= ring.width).all() and (rim[:, 1] >= 0).all())


def test_a_left_child_is_on_the_left_of_who_looks_outwards() -> None:
    ring = Ring(3)
    assert ring.at(1)[0] < ring.at(0)[0] < ring.at(2)[0]
    (x0, y0) = ring.at(0)
    for parent in range(1, 7):
        (x, y), left, right = ring.at(parent), ring.at(2 * parent + 1), ring.at(2 * parent + 2)
        out = x - x0, y - y0
        sides = [out[0] * (child[1] - y) - out[1] * (child[0] - x) for child in (left, right)]
        assert sides[0] < 0 < sides[1]  # y grows downwards: a negative product is a turn to the left


def test_what_is_seen_of_a_split(tmp_path: Path) -> None:
    _, seen = tree.draw(saved(tmp_path), "test", 0, [])
    assert len(seen.leaf) == 597
    assert seen.shares[0] == 1.0
    for node in range(7):
        assert seen.shares[node] == pytest.approx(seen.shares[2 * node + 1] + seen.shares[2 * node + 2], abs=1e-6)
    assert seen.shares[7:] == pytest.approx((seen.leaf.bincount(minlength=8) / 597).tolist())


def accuracy(net: SoftTree, images: Tensor, labels: Tensor) -> float:
    return float((net.eval()(images).argmax(1) == labels).float().mean())


def test_both_accuracies_are_the_networks_own(tmp_path: Path) -> None:
    _, seen = tree.draw(path := saved(tmp_path), "val", 0, [])
    data = Digits(**{key: value for key, value in DATA.items() if key != "_target_"})
    batch = data.splits["val"][0, torch.arange(600)]
    net = SoftTree([1, 8, 8], 10, depth=3)
    load_into(net, path)
    expected = []
    for net.leaves.answer in ("leaf", "mean"):
        expected.append(accuracy(net, batch["input"], batch["label"]))
    assert seen.accuracy == pytest.approx(expected)


def test_the_picture_is_one_file_with_every_filter_and_leaf(tmp_path: Path) -> None:
    drawn, seen = tree.draw(saved(tmp_path), "test", 5, [])
    root = ET.fromstring(drawn)
    images = list(root.iter(f"{SVG}image"))
    assert len(images) == 7 + 1 + 3  # filters, the example, the filters of its way
    assert all(image.get("href").startswith("data:image/png;base64,") for image in images)
    assert not re.search(r"href=\"(?!data:)|url\(", drawn)
    rims = [text for text in root.iter(f"{SVG}text") if text.get("class", "").startswith("halo")]
    assert len(rims) == 8
    lines = [line for line in root.iter(f"{SVG}line") if line.get("class") == "way"]
    assert len(lines) == 3
    ring, nodes = Ring(3), way(int(seen.leaf[5]), 8)
    assert [(line.get("x2"), line.get("y2")) for line in lines] == [
        tuple(f"{round(value, 1):g}" for value in ring.at(node)) for node in nodes[1:]
    ]


def test_grey_is_white_for_right_and_black_for_left() -> None:
    [address] = grey(torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]]))
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("L")
    found = np.asarray(picture).flatten().tolist()
    assert found[0] == 0
    assert found[3] == 255
    assert found[0] < found[1] < found[2] < found[3]
    assert abs(found[1] - 128) < 10


def test_the_command_writes_the_file_and_says_both_accuracies(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "t.svg"
    monkeypatch.setattr(sys, "argv", ["tree", str(saved(tmp_path)), "--out", str(out), "--split", "val"])
    tree.main()
    assert re.match(
        r"val: \d+\.\d\d % by the most probable leaf, \d+\.\d\d % by the mean of all\n", capsys.readouterr().out
    )
    assert out.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("network", "example", "said"),
    [
        ({"_target_": "torch.nn.Flatten", "input_shape": None}, 0, "expected a soft tree"),
        ({}, 597, r"example must be in 0 … 596; found 597"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch, network, example, said) -> None:
    path = saved(tmp_path)
    if network:
        net = torch.nn.Flatten()
        save_network(net, path, {"stage": "s", "seed": 0, "network": {"_target_": "torch.nn.Flatten"}, "data": DATA})
    monkeypatch.setattr(sys, "argv", ["tree", str(path), "--example", str(example), "--out", str(tmp_path / "t.svg")])
    with pytest.raises(SystemExit, match=said):
        tree.main()
    assert not (tmp_path / "t.svg").exists()
