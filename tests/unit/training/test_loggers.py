"""Each training has loggers of its own, whatever their class wants to be told."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.runtime.json_files import read_json
from tutelage.training import loggers


class Recorder(Logger):
    """Notes what it was given."""

    name = version = None

    def __init__(self, **given):
        self.given, self.params = given, None

    def log_hyperparams(self, params):
        self.params = params

    def log_metrics(self, metrics, step=None):
        pass


class LikeWandb(Recorder):
    def __init__(self, name=None, save_dir=".", version=None, id=None, project=None, experiment=None, **kwargs):
        super().__init__(name=name, save_dir=save_dir, id=id, **kwargs)
        self._experiment = None

    @property
    def version(self):
        return self.given["id"]

    class Run:
        open = 0

        def __init__(self):
            LikeWandb.Run.open += 1

        def finish(self):
            LikeWandb.Run.open -= 1

    def log_hyperparams(self, params):
        super().log_hyperparams(params)
        self._experiment = LikeWandb.Run()


class LikeMlflow(Recorder):
    def __init__(
        self, experiment_name="e", run_name=None, tracking_uri=None, tags=None, save_dir="./mlruns", run_id=None
    ):
        super().__init__(run_name=run_name, tags=tags, save_dir=save_dir, run_id=run_id)

    @property
    def version(self):
        return self.given["run_id"] or "chosen by the service"


class Files(Recorder):
    def __init__(self, save_dir):
        super().__init__(save_dir=save_dir)


class Nothing(Recorder):
    def __init__(self):
        super().__init__()


def stage(run=None, **nodes):
    made = {name: {"_target_": f"{__name__}.{cls.__name__}", **more} for name, (cls, more) in nodes.items()}
    return OmegaConf.create({"logger": made, "paths": {"run": run and str(run)}, "seed": 3, "data": {"key": "secret"}})


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))


def at(tmp_path, name="student", job="day/job"):
    folder = tmp_path / ("artifact" if name == "teacher" else job)
    return loggers.LoggedRun(name, tmp_path / job, folder, folder / "tensorboard")


def test_a_run_for_each_training_grouped_by_job(tmp_path):
    cfg = stage(w=(LikeWandb, {}))
    [student], [teacher] = (loggers.make(cfg, at(tmp_path, name)) for name in ("student", "teacher"))
    [other] = loggers.make(cfg, at(tmp_path, "student", "day/other"))
    assert len({one.given["id"] for one in (student, teacher, other)}) == 3
    assert student.given["group"] == teacher.given["group"] == "day/job"
    assert other.given["group"] == "day/other"
    assert student.given["name"] == "day/job/student"
    assert teacher.given["job_type"] == "teacher"
    assert teacher.given["save_dir"] == str(tmp_path / "day/job")  # not the shared artifact's


def test_two_networks_of_one_stage_are_two_runs(tmp_path):
    cfg = stage(w=(LikeWandb, {}))
    places = [loggers.LoggedRun("teacher", tmp_path, tmp_path / x, tmp_path / x / "tensorboard") for x in "ab"]
    assert len({loggers.make(cfg, one)[0].given["id"] for one in places}) == 2


def test_a_job_keeps_its_id_and_another_in_a_folder_of_the_same_name_has_its_own(tmp_path):
    (tmp_path / "day/job").mkdir(parents=True)
    (tmp_path / "day/job/run.id").write_text("abc")
    assert at(tmp_path).run == at(tmp_path).run
    before = at(tmp_path).run
    (tmp_path / "day/job/run.id").write_text("abd")
    assert at(tmp_path).run != before


def test_the_run_ends_with_its_training_also_when_that_fails(tmp_path):
    cfg = stage(w=(LikeWandb, {}))
    made = loggers.make(cfg, at(tmp_path))
    during = []

    def train():
        with loggers.training(cfg, at(tmp_path), made):
            during.append(LikeWandb.Run.open)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train()
    assert (during, LikeWandb.Run.open) == ([1], 0)
    assert made[0].params == {"seed": 3}  # no data: mirrors may have passwords


def test_a_later_attempt_goes_on_in_the_run_that_the_service_named(tmp_path):
    cfg = stage(m=(LikeMlflow, {}))
    for expected in (None, "chosen by the service"):
        made = loggers.make(cfg, at(tmp_path))
        assert made[0].given["run_id"] == expected
        with loggers.training(cfg, at(tmp_path), made):
            pass
    assert read_json(tmp_path / "day/job" / loggers.RUNS)["m"]["id"] == "chosen by the service"


def test_another_job_that_goes_on_with_an_artifact_has_a_run_of_its_own(tmp_path):
    cfg = stage(m=(LikeMlflow, {}))
    first, second = at(tmp_path, "teacher"), at(tmp_path, "teacher", "day/other")
    assert first.folder == second.folder
    with loggers.training(cfg, first, loggers.make(cfg, first)):
        pass
    assert loggers.make(cfg, second)[0].given["run_id"] is None


def test_tags_of_the_config_come_to_ours(tmp_path):
    [made] = loggers.make(stage(m=(LikeMlflow, {"tags": {"who": 1}})), at(tmp_path))
    assert made.given["tags"] == {"job": "day/job", "stage": "student", "run": at(tmp_path).run, "who": "1"}


def test_what_the_config_says_is_left_as_it_is(tmp_path):
    [made] = loggers.make(stage(w=(LikeWandb, {"save_dir": "/elsewhere", "group": "mine"})), at(tmp_path))
    assert (made.given["save_dir"], made.given["group"]) == ("/elsewhere", "mine")


def test_one_id_for_all_trainings_is_refused(tmp_path):
    with pytest.raises(TutelageError, match=r"logger\.w\.id: every training needs a run of its own"):
        loggers.make(stage(w=(LikeWandb, {"id": "x"})), at(tmp_path))


def test_loggers_that_take_less_are_given_less(tmp_path):
    files, nothing = loggers.make(stage(f=(Files, {}), n=(Nothing, {})), at(tmp_path))
    assert files.given == {"save_dir": str(tmp_path / "day/job/f/student")}
    assert nothing.given == {}


def test_an_attempt_deletes_no_curves_of_an_earlier_one(tmp_path):
    cfg = OmegaConf.create({"logger": {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}}})
    for value in (1.0, 2.0):
        [made] = loggers.make(cfg, at(tmp_path))
        made.log_metrics({"train/loss": value}, 0)
        made.save()
    found = sorted(path.parent.name for path in (tmp_path / "day/job/csv").rglob("metrics.csv"))
    assert found == ["student", "student.2"]


@pytest.mark.parametrize("choice", ["logger=none", "~logger"])
def test_no_logger(compose, tmp_path, choice):
    cfg = compose(choice)
    assert loggers.make(factory.stage_config(cfg, "student"), at(tmp_path)) == []
    assert not loggers.has_tensorboard(cfg)


def test_null_is_no_logger_on_the_command_line(main):
    said = main("distill", "logger=null", "--cfg", "job")
    assert said.code == 0
    assert "\nlogger: {}\n" in said.out


@pytest.mark.parametrize(("choice", "has"), [("tensorboard", True), ("csv", False), ("[csv,tensorboard]", True)])
def test_pictures_are_drawn_where_tensorboard_is(compose, choice, has):
    assert loggers.has_tensorboard(compose(f"logger={choice}")) == has


@pytest.mark.parametrize(
    ("stage", "job"), [({"paths": {"run": "here/job"}}, "here/job"), ({"paths": {"run": None}}, "there"), ({}, "there")]
)
def test_outside_a_job_the_folder_of_the_curves_is_its_place(stage, job):
    found = loggers.place(OmegaConf.create(stage), "student", Path("weights"), Path("there/tensorboard"))
    assert (found.stage, found.job, found.folder) == ("student", Path(job), Path("weights"))
