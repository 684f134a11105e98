import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from tutelage.checkpoints.weights import save_network
from tutelage.models.mlp import MLP
from tutelage.report import dark_knowledge
from tutelage.runtime.json_files import write_json

SVG = "{http://www.w3.org/2000/svg}"
DATA = {
    "_target_": "tutelage.data.digits.Digits", "num_classes": 10, "input_shape": [1, 8, 8], "batch_size": 32,
    "val_size": 600, "test_size": 597, "seed": 0, "mean": [0.3053], "std": [0.376],
}  # fmt: skip
NETWORK = {"_target_": "tutelage.models.mlp.MLP", "input_shape": [1, 8, 8], "widths": [8], "num_classes": 10}


def saved(folder: Path) -> Path:
    """The folder of an artifact with a network that was not trained."""
    torch.manual_seed(0)
    path = folder / "teacher" / "last.safetensors"
    path.parent.mkdir()
    save_network(MLP([1, 8, 8], [8], 10), path, {"stage": "teacher", "seed": 0, "network": NETWORK, "data": DATA})
    return path.parent


def bars(drawn: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(drawn).iter(f"{SVG}rect") if one.get("class") in ("true", "other")]


def test_softened_against_the_formula() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(9.0), 0.0]])
    one = dark_knowledge.softened(logits, 1.0)
    assert one.first == pytest.approx((0.75 + 0.9) / 2)
    assert one.second == pytest.approx((0.25 + 0.1) / 2)
    bits = [-sum(p * math.log2(p) for p in row) for row in ((0.25, 0.75), (0.9, 0.1))]
    assert one.entropy == pytest.approx(sum(bits) / 2)
    assert dark_knowledge.softened(logits, 2.0).first == pytest.approx((3**0.5 / (1 + 3**0.5) + 0.75) / 2)


def test_softened_tends_to_uniform_and_stays_finite() -> None:
    logits = torch.tensor([[0.0, 500.0, -500.0, 3.0]])
    assert dark_knowledge.softened(logits, 1e9).entropy == pytest.approx(2.0)
    assert dark_knowledge.softened(logits, 0.1).entropy == 0.0


def test_a_run_shows_its_teacher_and_an_artifact_its_last_weights(tmp_path: Path) -> None:
    place = saved(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "artifacts.json", {"teacher": {"folder": str(place)}})
    drawn = [dark_knowledge.draw(one, "test", 4, [1, 8], []) for one in (run, place, place / "last.safetensors")]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(list(ET.fromstring(drawn[0][0]).iter(f"{SVG}image"))) == 4
    assert [one.temperature for one in drawn[0][1]] == [1, 8]
    assert not re.search(r"href=\"(?!data:)|url\(", drawn[0][0])


@pytest.mark.parametrize(("chosen", "file"), [("last", "last"), ("best", "best"), (3, "last")])
def test_a_run_shows_the_weights_that_taught_wherever_one_looks(tmp_path, monkeypatch, chosen, file) -> None:
    """The folder in ``artifacts.json`` is relative to where the run was started; an epoch's weights are its last."""
    place = saved(tmp_path)
    run = tmp_path / "outputs" / "run"
    write_json(run / "artifacts.json", {"teacher": {"folder": "teacher"}})
    write_json(run / ".hydra" / "hydra.yaml", {"hydra": {"runtime": {"cwd": str(tmp_path)}}})
    write_json(run / "config.yaml", {"stages": {"teacher": {"weights": chosen}}})
    monkeypatch.chdir(run.parent)
    for one in (run, Path("run")):
        assert dark_knowledge.find(one) == place / f"{file}.safetensors"
    place.rename(tmp_path / "gone")
    with pytest.raises(dark_knowledge.TutelageError, match="its teacher's folder teacher is missing"):
        dark_knowledge.find(run)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_bars_are_the_probabilities_and_one_of_each_example_is_dark(tmp_path: Path, split: str) -> None:
    drawn, _ = dark_knowledge.draw(saved(tmp_path), split, 2, [4], [])
    found = bars(drawn)
    assert len(found) == 20
    heights = torch.tensor([float(one.get("height")) for one in found]).view(2, 10) / 70
    assert heights.sum(1).tolist() == pytest.approx([1, 1], abs=0.01)
    assert [one.get("class") for one in found].count("true") == 2


def test_the_curve_of_the_seed() -> None:
    drawn = dark_knowledge.curve([-1, 0, 4, 3], [1, 5])
    points = list(ET.fromstring(drawn).iter(f"{SVG}circle"))
    said = [float(one[0].text.split(" ")[0]) for one in points]
    exact = [math.exp(z / t) / sum(math.exp(x / t) for x in (-1, 0, 4, 3)) for t in (1, 5) for z in (-1, 0, 4, 3)]
    assert said == pytest.approx(exact, abs=6e-4)
    heights = [float(one.get("cy")) for one in points]
    assert heights.index(min(heights)) == 2  # y grows downwards


def test_the_commands_write_files(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "a.svg"
    given = ["answers", str(saved(tmp_path)), "seed=3", "--out", str(out), "--temperatures", "1", "20"]
    monkeypatch.setattr(sys, "argv", ["dark_knowledge", *given])
    dark_knowledge.main()
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| 1", "| 20"]
    assert out.stat().st_size < 100_000
    monkeypatch.setattr(sys, "argv", ["dark_knowledge", "curve", "--logits", "-1", "2", "--out", str(out)])
    dark_knowledge.main()
    assert ET.fromstring(out.read_text()).findtext(f"{SVG}title").startswith("The higher")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "0"], "count must be at least 1; found 0"),
        (["--temperatures", "1", "0"], r"temperatures must be positive numbers; found \[1.0, 0.0\]"),
    ],
)
def test_answers_that_cannot_be_drawn_are_refused(tmp_path: Path, monkeypatch, arguments, said) -> None:
    out = tmp_path / "a.svg"
    monkeypatch.setattr(sys, "argv", ["dark_knowledge", "answers", str(saved(tmp_path)), "--out", str(out), *arguments])
    with pytest.raises(SystemExit, match=said):
        dark_knowledge.main()
    assert not out.exists()


def test_a_run_without_a_network_behind_its_teacher_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "artifacts.json", {"control": {"folder": "x"}})
    with pytest.raises(dark_knowledge.TutelageError, match="teacher is not a network"):
        dark_knowledge.find(tmp_path)


def test_a_curve_needs_two_finite_logits() -> None:
    for logits in ([1.0], [1.0, math.inf]):
        with pytest.raises(dark_knowledge.TutelageError, match="at least two finite logits"):
            dark_knowledge.curve(logits, [1])
