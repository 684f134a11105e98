"""Fault 34: every file of a finished run and of its artifacts, damaged in thirteen ways, and every folder locked up.

Accepted is only: the same figures, what was damaged being made again; or a sentence, with an exit code that is not 0.
"""

import json
from pathlib import Path

import pytest
from command import TINY
from damage import KINDS, bound_by_permissions, copy, unreadable
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from runs import figures

from tutelage.errors import TutelageError, explain, is_users
from tutelage.pipeline.distill import distill_job
from tutelage.pipeline.evaluate import evaluate
from tutelage.report.answers import Answers
from tutelage.report.runs import read_run
from tutelage.runtime import manifest
from tutelage.runtime.status import JobStatus, jobs

pytestmark = pytest.mark.slow

COMMAND = (*TINY, "trainer.max_epochs=1", "hydra.run.dir=run", "paths.artifacts=shop", "logger=tensorboard")
PASSING = ("status.json", "heartbeat.json", "distill.log")  # signs of life: no figure rests on them


@pytest.fixture(autouse=True)
def _bound_by_permissions():
    try:
        with bound_by_permissions():
            yield
    except OSError as error:
        pytest.skip(f"root may read everything here, whatever its permissions ({error})")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, request):
    """A folder with a finished run and its artifacts, made in this process."""
    return _make(tmp_path_factory.mktemp("whole"))


def _make(folder: Path) -> Path:
    _distill(folder)
    return folder


def _distill(folder: Path, run: str = "run") -> float:
    """Runs `tutelage distill` in ``folder``, without the second that Hydra takes to compose."""
    from hydra import compose, initialize_config_dir

    from tutelage.config.paths import conf_dir

    global _cfg
    if _cfg is None:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            _cfg = compose("distill", overrides=list(COMMAND), return_hydra_config=True)
    cfg = _cfg.copy()
    with open_dict(cfg):
        cfg.paths.outputs, cfg.paths.artifacts = str(folder), str(folder / "shop")
        cfg.hydra.runtime.output_dir, cfg.hydra.runtime.cwd = str(folder / run), str(folder)
        cfg.hydra.job.num, cfg.hydra.job.id = 0, "0"
        cfg.hydra.mode = "RUN"
    HydraConfig.instance().set_config(cfg)
    try:
        job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return distill_job(job)
    finally:
        HydraConfig.instance().cfg = None


_cfg = None


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _all(folder: Path) -> list[str]:
    """Of a run's folder and of one artifact of each kind, those that matter."""
    names = [*(f"run/{name}" for name in _files(folder / "run")), *(f"shop/{name}" for name in _files(folder / "shop"))]
    return [name for name in names if not any(part.startswith(".") for part in Path(name).parts)]


def _cases(folder: Path, share: int) -> list[tuple[str, str]]:
    """One in ``share`` of the pairs of a file and a way, so that each way meets many files."""
    return [
        (name, kind)
        for at, name in enumerate(_all(folder))
        for number, kind in enumerate(KINDS)
        if (number + at * (len(KINDS) + 1)) % share == 0
    ]


def _accepted(name: str, whole: Path, folder: Path) -> str:
    """Returns what is wrong with the reaction to the damage; empty if nothing is."""
    run = "run" if name.split("/")[0] == "run" else "again"  # an artifact is read by another run
    try:
        _distill(folder, run)
    except (Exception, SystemExit) as error:
        if not is_users(error):
            return f"{type(error).__name__}: {error}"
        return "" if explain(error).strip() else "no sentence"
    if figures(folder / run) != figures(whole / "run"):
        return "other figures"
    left = {**manifest.problems(folder / run), **manifest.problems(folder / run / "checkpoints")}
    return f"still damaged: {left}" if left else ""


def _try(whole: Path, tmp_path: Path, share: int) -> None:
    wrong = {}
    for at, (name, kind) in enumerate(_cases(whole, share)):
        folder = copy(whole, tmp_path / str(at))
        KINDS[kind](folder / name)
        if said := _accepted(name, whole, folder):
            wrong[name, kind] = said
    assert not wrong, "\n".join(f"{' '.join(key)}: {said}" for key, said in wrong.items())


def test_a_folder_that_may_not_be_read_is_made_anew_or_named(whole, tmp_path):
    """The run's own, with what its figures rest on, and one artifact's; `status` and `report` name them as well."""
    wrong = {}
    for at, name in enumerate(("run", "run/checkpoints", "shop/teacher", "shop/control/*")):
        folder = copy(whole, tmp_path / str(at))
        [place] = (path for path in folder.glob(name) if path.is_dir())
        unreadable(place)
        if name.startswith("run"):
            [job] = jobs(folder)
            said = f"{job.state} {job.why}; {read_run(folder / 'run').problem}"
            if not said.startswith("DAMAGED") or said.count("ermission") != 2 or place.name not in said:
                wrong[name] = said
        if found := _accepted(name, whole, folder):
            wrong[name, "again"] = found
    assert not wrong


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_some_of_all_files_and_ways(whole, tmp_path):
    """One in eleven; all of them, with a share of 1, take most of an hour."""
    _try(whole, tmp_path, 11)


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_report_name_the_damaged_file(whole, tmp_path, kind):
    """Or say what they say of the whole run, where what they show does not rest on the file."""
    wrong = {}
    expected, said = JobStatus.read(whole / "run"), _report(whole / "run")
    for at, name in enumerate(_files(whole / "run")):
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        run = copy(whole, tmp_path / str(at)) / "run"
        KINDS[kind](run / name)
        job = JobStatus.read(run)
        if job.state == "COMPLETE" and job.best == expected.best and _report(run) == said:
            continue
        problem = read_run(run).problem or ""
        if name in PASSING[:1] and problem:
            continue
        if name not in PASSING and (job.state != "DAMAGED" or Path(name).name not in job.why + problem):
            wrong[name] = f"{job.state} {job.why}; {problem}"
    assert not wrong


def _report(run: Path) -> object:
    """Returns what a report shows of a run: its figures, and whether its answers belong to them."""
    found = read_run(run)
    answers = Answers("last")
    counts = [
        one.choice.tolist() for role in ("teacher", "control", "student") if (one := answers.of(found, role, "test"))
    ]
    return found.problem, found.metrics, found.config, dict(found.overrides), counts, sorted(map(str, answers.problems))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_damaged_checkpoint_is_not_evaluated(whole, tmp_path, kind, weights):
    folder = copy(whole, tmp_path / "copy")
    path = folder / "run" / "checkpoints" / f"{weights}.safetensors"
    asked = {"checkpoint": str(path), "trust": [], "data": {}, "split": "test", "teacher": None, "device": "cpu"}
    expected = evaluate(OmegaConf.create(asked))["figures"]
    KINDS[kind](path)
    with pytest.raises(TutelageError, match=r"\S+ \S+ \S+"):
        evaluate(OmegaConf.create(asked))
    assert expected["count"] == 297


@pytest.mark.parametrize("file", ["teacher", "control"])
def test_a_damaged_artifact_is_set_aside_with_one_line(whole, tmp_path, caplog, file):
    folder = copy(whole, tmp_path / "copy")
    [path] = (folder / "shop" / file).glob("*/predictions.safetensors")
    KINDS["middle-bit"](path)
    _distill(folder, "again")
    lines = [record.getMessage() for record in caplog.records if "made again" in record.getMessage()]
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert json.loads((folder / "again" / "metrics.json").read_text())[file]["reused"] is False
