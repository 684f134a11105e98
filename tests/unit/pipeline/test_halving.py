"""``sweeper=halving``: what is drawn, who goes on, and that one command is a pure function of its jobs' figures."""

import math
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from hydra_plugins.tutelage_halving import HalvingSweeper
from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError
from tutelage.pipeline import halving
from tutelage.pipeline.halving import Arm, Range


def test_values_are_uniform_on_their_scale_and_within_their_range():
    ranges = [Range("t", 0.5, 32, "log"), Range("a", 0.1, 0.99, "odds"), Range("n", 2, 5, whole=True)]
    trials = halving.drawn(ranges, 4000, 0)
    t, a, n = ([float(trial[key]) for trial in trials] for key in "tan")
    middle = 1 / (1 + math.sqrt((1 - 0.1) / 0.1 * (1 - 0.99) / 0.99))
    for values, low, high, half in ((t, 0.5, 32, 4.0), (a, 0.1, 0.99, middle)):
        assert low <= min(values)
        assert max(values) <= high
        assert sum(value < half for value in values) == pytest.approx(2000, abs=130)  # four standard deviations
    assert {*n} == {2, 3, 4, 5}
    assert (t[0], a[0]) == (4, pytest.approx(middle, abs=1e-4))


def test_more_trials_begin_with_the_same_and_depend_on_seed_and_key_alone():
    one, other = Range("a", 1, 9, "log"), Range("b", 1, 9, "log")
    few, many = halving.drawn([one], 3, 0), halving.drawn([other, one], 6, 0)
    assert few == [{"a": trial["a"]} for trial in many[:3]]
    assert halving.drawn([one], 3, 1)[1:] != few[1:]
    assert many[1]["a"] != many[1]["b"]


@pytest.mark.parametrize(
    ("epochs", "rungs", "eta", "expected"),
    [(18, 3, 3, [2, 6, 18]), (2, 3, 3, [1, 2]), (7, 1, 2, [7]), (10, 2, 4, [2, 10])],
)
def test_lengths_of_rungs(epochs, rungs, eta, expected):
    assert halving.lengths(epochs, rungs, eta) == expected


def test_around_a_value_s_own_and_nothing_where_it_is_off_or_missing():
    config = OmegaConf.create({"loss": {"alpha": 0.9, "temperature": 4.0, "smoothing": 0.0}})
    (t,) = halving.around(config, {"loss.temperature": 2, "loss.smoothing": 2, "loss.beta": 2}, "log")
    assert (t.low, t.high) == (pytest.approx(2), pytest.approx(8))
    (a,) = halving.around(config, {"loss.alpha": 3}, "odds")
    assert (a.low, a.high) == (pytest.approx(3 / 4), pytest.approx(27 / 28))
    with pytest.raises(TutelageError, match=r"expected a factor above 1 for loss.alpha, found 1"):
        halving.around(config, {"loss.alpha": 1}, "odds")
    with pytest.raises(TutelageError, match=r"loss.temperature=4.0 is no number that a range can lie around"):
        halving.around(config, {"loss.temperature": 2}, "odds")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.max_epochs=int(interval(1,4))", "rungs set how long"),
        ("loss.alpha=interval(1,0)", "expected a lower and an upper end"),
        ("loss.alpha=tag(log,interval(0.0,1.0))", "above 0"),
        ("seed=range(0,3)", "seed: a search has one seed"),
    ],
)
def test_a_range_that_is_none_is_refused(word, message):
    with pytest.raises(TutelageError, match=message):
        halving.split([word])


@pytest.mark.parametrize(
    "option", [{"n_trials": 0}, {"rungs": 0}, {"eta": 1.0}, {"eta": math.nan}, {"fresh_seeds": -1}]
)
def test_an_option_without_sense_is_refused(option):
    with pytest.raises(TutelageError, match=rf"hydra.sweeper.{next(iter(option))}: expected"):
        sweeper(**option)


def sweeper(**options):
    defaults = {"n_trials": 4, "rungs": 2, "eta": 2.0, "draw_seed": 0, "fresh_seeds": 0}
    return HalvingSweeper(**{**defaults, **dict.fromkeys(("around", "around_odds", "beside", "params")), **options})


def test_the_best_go_on_and_of_equals_the_first():
    arm = Arm("x", [], [], [], 4, [{}] * 4, [0, 1, 2, 3])
    arm.results = {(0, 0): 0.5, (0, 1): 0.7, (0, 2): -math.inf, (0, 3): 0.5}
    arm.promote(0, 3)
    assert arm.alive == [1, 0, 3]
    arm.promote(0, 2)
    assert arm.alive == [1, 0]


@pytest.fixture
def searched(compose, tmp_path):
    """``searched(figure, words, **options)`` → the sweeper's jobs, whose figure is a function of their overrides."""

    def run(figure, words, **options):
        jobs = []

        def launch(overrides, initial_job_idx):
            assert initial_job_idx == len(jobs)
            jobs.extend(overrides)
            return [returned(figure(dict(word.split("=", 1) for word in one))) for one in overrides]

        with initialize_config_dir(conf_dir(), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            fixed = [w for w in words if not OverridesParser.create().parse_override(w).is_sweep_override()]
            config = loader.load_configuration("distill", [*fixed, f"hydra.sweep.dir={tmp_path}"], "MULTIRUN")
            with open_dict(config):
                config.hydra.runtime.output_dir = str(tmp_path)
            one = sweeper(**options)
            one.config, one.hydra_context = config, SimpleNamespace(config_loader=loader)
            one.launcher = SimpleNamespace(launch=launch)
            one.sweep(words)
        return [dict(word.split("=", 1) for word in job) for job in jobs]

    return run


def returned(value):
    made = JobReturn(status=JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED)
    made.return_value = value
    return made


def test_a_search_for_each_choice_and_one_beside_them(searched, tmp_path, capsys):
    jobs = searched(
        lambda given: -abs(float(given.get("loss.temperature", 0)) - 3),
        ["trainer.max_epochs=4", "loss=soft_target,logit_mse", "loss.alpha=0.7"],
        around={"loss.temperature": 4}, beside={"longer": ["loss=hard", "loss.alpha=0", "trainer.max_epochs=9"]},
        fresh_seeds=2, n_trials=4,
    )  # fmt: skip
    short = [job for job in jobs if job.get(halving.LENGTH) == "2"]
    assert len(short) == 4
    assert all(job["loss"] == "soft_target" for job in short)  # the others have no temperature
    best = min((float(job["loss.temperature"]) for job in short), key=lambda t: abs(t - 3))
    whole = [job for job in jobs if halving.LENGTH not in job and "seed" not in job]
    assert len(whole) == 2
    fresh = [(job["loss"], job["seed"], job.get("loss.temperature"), job["trainer.max_epochs"]) for job in jobs[6:]]
    assert fresh == [
        *(("soft_target", seed, f"{best:.4g}", "4") for seed in "12"),
        *(("logit_mse", seed, None, "4") for seed in "12"),
        *(("hard", seed, None, "9") for seed in "12"),
    ]
    folders = [job["hydra.sweep.subdir"].strip("'") for job in jobs]
    assert len({*folders}) == len(jobs)
    assert folders[-1] == "fresh/loss=hard,loss.alpha=0,trainer.max_epochs=9,seed=2"
    lines = (tmp_path / "rungs.csv").read_text().splitlines()
    assert lines[0] == "arm,trial,sets,rung,epochs,validation"
    assert len(lines) == 1 + 4 + 2
    assert f"loss.temperature={best:.4g}" in capsys.readouterr().out


def test_a_job_that_fails_or_has_no_figure_does_not_go_on_and_the_error_comes_last(searched):
    seen = []

    def figure(given):
        seen.append(given)
        t = float(given["loss.temperature"])
        return TutelageError("this one") if t < 4 else math.nan if t == 5 else -t

    with pytest.raises(TutelageError, match="this one"):
        searched(figure, ["trainer.max_epochs=4", "loss.temperature=interval(1.0,9.0)"], n_trials=8, fresh_seeds=1)
    first = [float(given["loss.temperature"]) for given in seen[:8]]
    assert min(first) < 4
    assert first[0] == 5
    assert float(seen[-1]["loss.temperature"]) == min(t for t in first if t >= 4 and t != 5)
    assert seen[-1]["seed"] == "1"


def test_nothing_to_search_is_refused(searched):
    with pytest.raises(TutelageError, match="nothing to search"):
        searched(lambda given: 0.0, ["loss=soft_target,hard"])


def test_a_key_that_no_combination_has_is_named(searched, caplog):
    around = {"loss.temprature": 4, "loss.temperature": 4}
    searched(lambda given: 0.0, ["loss=soft_target,hard"], around=around, n_trials=2)
    assert [one.getMessage() for one in caplog.records if "no combination has" in one.getMessage()] == [
        "sweeper=halving: no combination has loss.temprature, which is therefore not searched"
    ]
