"""A sweep from the command line; its report and its TensorBoard in a browser."""

import base64
import contextlib
import csv
import itertools
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser import CHROMIUM, page
from command import TINY, environment, tutelage

from tutelage.report.runs import read_runs
from tutelage.report.write import write_report

pytestmark = [pytest.mark.slow, pytest.mark.long]

browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
# The page, as it is, in a frame as wide as the device (a window has a least width), looked at from outside.
MEASURE = """<!DOCTYPE html><body style="margin:0"><iframe width="WIDTH" height="900" style="border:0"></iframe><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const inside = frame.contentWindow, root = inside.document, edge = e => e.getBoundingClientRect();
  const drawings = [...root.querySelectorAll("svg")];
  const texts = drawings.flatMap(drawing => [...drawing.querySelectorAll("text")].map(text => [drawing, text]));
  const found = {
    window: inside.innerWidth, page: root.documentElement.scrollWidth, texts: texts.length,
    wide: [...root.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg, .skip"))
      .filter(e => edge(e).right > inside.innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
    small: texts.filter(([_, text]) => edge(text).height < 9).map(([_, text]) => text.textContent),
    cut: texts.filter(([drawing, text]) => edge(text).right > edge(drawing).right + 2
      || edge(text).left < edge(drawing).left - 2).map(([_, text]) => text.textContent),
    fetched: inside.performance.getEntriesByType("resource").map(entry => entry.name),
  };
  document.body.innerHTML = "<pre>" + btoa(unescape(encodeURIComponent(JSON.stringify(found)))) + "</pre>";
});
frame.srcdoc = PAGE;
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two temperatures, two alphas, two seeds; one run that fails; one evaluation."""
    root = tmp_path_factory.mktemp("sweep")
    grid = ("seed=0,1", "loss.temperature=1,4", "loss.alpha=0.5,1")
    tutelage("distill", "-m", *grid, *TINY, "hydra.sweep.dir=runs", cwd=root)
    refused = tutelage("distill", "seed=2", "loss.alpha=7", *TINY, "hydra.run.dir=runs/refused", cwd=root, check=False)
    assert refused.returncode == 1
    [student, *_] = root.glob("runs/*/checkpoints/last.safetensors")
    tutelage("evaluate", f"checkpoint='{student}'", "hydra.run.dir=runs/evaluated", cwd=root)
    tutelage("report", "runs", cwd=root)
    return root / "runs"


def rows(folder, name):
    with (folder / "report" / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_figures_are_those_of_the_runs(folder):
    cells = rows(folder, "cells")
    assert len(cells) == 4
    best = next(cell for cell in cells if cell["choice"])
    assert best is cells[0]
    documents = [
        json.loads(path.read_text()) for path in folder.glob("*/metrics.json") if path.parent.name != "evaluated"
    ]
    assert len(documents) == 8
    means = {}
    for path in folder.glob("*/metrics.json"):
        found = re.search(r"loss.alpha=([\d.]+),loss.temperature=(\d+)", path.parent.name)
        if found:
            value = json.loads(path.read_text())["student"]["last"]["val"]["accuracy"]
            means.setdefault((found[2], found[1]), []).append(value)
    highest = max(statistics.fmean(values) for values in means.values())
    assert float(best["val, %"]) == pytest.approx(highest)
    assert {row["split"] for row in rows(folder, "fidelity")} == {"train", "val", "test"}
    assert [row["why"] for row in rows(folder, "failed")] != [""]
    assert any(row["network"].startswith("evaluated: student") for row in rows(folder, "cost"))


def test_training_images_are_measured_for_all_three(folder):
    [path, *_] = [path for path in folder.glob("*/metrics.json") if path.parent.name != "evaluated"]
    metrics = json.loads(path.read_text())
    for role in ("teacher", "control", "student"):
        train = metrics[role]["last"]["train"]
        assert 0 < train["accuracy"] <= 1
        assert train["count"] > metrics[role]["last"]["test"]["count"]
        assert ("agreement" in train) == (role != "teacher")


def test_disagreements_are_shown_and_curves_drawn(folder):
    text = (folder / "report" / "index.html").read_text()
    assert text.count("<img ") >= 2
    assert 'id="figure-val-accuracy"' in text
    assert "can't be read" not in text


def test_a_folder_without_runs_is_one_message(folder, tmp_path):
    done = tutelage("report", str(tmp_path), cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "no run in" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report").exists()


def test_runs_given_by_name(folder, tmp_path):
    """Their names have = in them, as overrides do."""
    two = sorted(str(path) for path in folder.glob("loss.alpha=0.5,loss.temperature=4,*"))
    assert len(two) == 2
    tutelage("report", *two, "-o", str(tmp_path / "out"), cwd=tmp_path)
    assert "2 runs, 1 cell<" in (tmp_path / "out" / "index.html").read_text()


def test_a_hundred_and_twenty_runs_are_one_small_page(folder, tmp_path):
    runs = [path.parent for path in folder.glob("*/metrics.json") if path.parent.name != "evaluated"]
    for seed in range(0, 30, 2):
        for run in runs:
            copy = tmp_path / "many" / f"{seed}-{run.name}"
            shutil.copytree(run, copy)
            for name in ("metrics.json", "artifacts.json"):
                document = json.loads((copy / name).read_text())
                own = document.setdefault("seed", document.get("control", {}).get("recipe", {}).get("seed"))
                if name == "metrics.json":
                    document["seed"] = own + seed
                else:
                    del document["seed"]
                    document["control"]["recipe"]["seed"] += seed
                (copy / name).write_text(json.dumps(document))
            (copy / "manifest.json").unlink()  # its checksums are of other seeds
    write_report(read_runs([tmp_path / "many"]), tmp_path / "out", "last")
    page = tmp_path / "out" / "index.html"
    assert "120 runs, 4 cells" in page.read_text()
    assert page.stat().st_size < 5_000_000


@browser
@pytest.mark.parametrize(("device", "width", "height"), [("desktop", 1280, 6000), ("phone", 390, 14000)])
def test_in_a_browser(folder, tmp_path, device, width, height):
    """Screenshots stay in ``tmp_path``, to be looked at."""
    page = folder / "report" / "index.html"
    chromium(page, width, height, f"--screenshot={tmp_path / device}.png")
    assert (tmp_path / f"{device}.png").stat().st_size > 50_000
    measure = tmp_path / "measure.html"
    inside = json.dumps(page.read_text()).replace("</", "<\\/")
    measure.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGE", inside))
    dump = chromium(measure, 1400, 1000, "--dump-dom", "--virtual-time-budget=5000")
    found = json.loads(base64.b64decode(re.search(r"<pre>(.+)</pre>", dump)[1]))
    assert found["window"] == width
    assert found["page"] <= width, found["wide"]
    assert found["texts"] > 300
    assert (found["wide"], found["cut"], found["small"], found["fetched"]) == ([], [], [], [])


def chromium(page: Path, width: int, height: int, *more: str) -> str:
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", f"--window-size={width},{height}", *more, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- TensorBoard -------------------------------------------------------------------------------------------------------

JOBS = {  # the folder of each, and its cell
    f"loss.alpha={a},loss.temperature={t},seed={s}": f"alpha={a},T={t} seed={s}"
    for a, t, s in itertools.product(("0.5", "1"), (1, 4), (0, 1))
}
OWN = {f"{stage} {cell}" for cell in JOBS.values() for stage in ("student", "final")}
SHARED = ["control seed=0", "control seed=1", "teacher seed=0"]  # and the beginning of a digest


@pytest.fixture(scope="module")
def board(folder):
    """The address of a TensorBoard that has read all of the sweep."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "tensorboard"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--load_fast=false"]
    server = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 1200
        while len(board_runs(f"http://127.0.0.1:{port}")) < len(OWN) + len(SHARED) and time.monotonic() < end:
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def board_runs(address: str) -> list[str]:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/data/runs") as answer:
        return json.load(answer)
    return []


def test_tensorboard_has_the_student_of_each_cell_and_the_teacher_once(board):
    runs = set(board_runs(board))
    assert {name for name in runs if name.startswith(("student", "final"))} == OWN
    assert sorted(name.rpartition(" ")[0] for name in runs - OWN) == SHARED


@browser
def test_tensorboard_s_list_of_runs_shows_stage_and_cell(board, tmp_path):
    """Screenshots stay in ``tmp_path``, here as below."""
    with page(tmp_path / "profile", 1600, 1000) as tab:
        tab.open(f"{board}/#timeseries")
        found = tab.wait(lambda texts: sum(text in OWN for text in texts) >= 5)
        tab.screenshot(tmp_path / "timeseries.png")
    assert len(OWN.intersection(found)) >= 5  # those on the first page, after the controls


@browser
def test_tensorboard_compares_what_varied_by_final_figures(board, folder, tmp_path):
    """Hyperparameters that differ come first of the five that are shown, and of the figures those one compares."""
    with page(tmp_path / "profile", 1600, 1000) as tab:
        tab.open(f"{board}/#hparams")
        found = tab.wait(lambda texts: sum(text.startswith("final ") for text in texts) == len(JOBS))
        tab.screenshot(tmp_path / "hparams.png")
    begin = found.index("Show Metrics") + 1
    columns, rows = found[begin : begin + 10], found[begin + 10 :]
    assert columns[:3] == ["loss.alpha", "loss.temperature", "seed"]
    figures = ("accuracy/gain", "accuracy/test", "accuracy/val", "agreement/test", "agreement/val")
    assert columns[5:] == [f"final/{name}" for name in figures]
    assert {"loss", "soft_target", "model@student"} <= set(found)
    for number, (job, cell) in enumerate(JOBS.items()):
        name, *values = rows[11 * number : 11 * (number + 1)]
        assert name == f"final {cell}"
        assert [float(value) for value in values[:3]] == [float(part.split("=")[1]) for part in job.split(",")]
        metrics = json.loads((folder / job / "metrics.json").read_text())
        shown = [metrics["gain"]["last"]["accuracy"]]
        shown += [metrics["student"]["last"][split]["accuracy"] for split in ("test", "val")]
        assert [float(value) for value in values[5:8]] == pytest.approx(shown, rel=1e-3)
