import pytest
from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from tutelage.config.validate import check
from tutelage.errors import TutelageError, explain, is_users, nearest


def test_it_is_what_hydra_prints_without_a_traceback_and_what_python_calls_a_bad_value():
    with pytest.raises(ValueError, match="why"):
        raise TutelageError("why")


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("temprature", ["temperature", "alpha"], "did you mean 'temperature'?"),
        ("stage", ["stage1", "stage2", "embedding"], "did you mean 'stage2' or 'stage1'?"),
        ("xyz", ["temperature", "alpha"], "known: alpha, temperature"),
        ("xyz", [], "known: none"),
        ("xyz", range(101), f"known: {', '.join(sorted(map(str, range(101)))[:20])}, … (101 in all)"),
    ],
)
def test_nearest(name, known, said):
    assert nearest(name, known) == said


def test_explain_names_the_nearest_key():
    node = OmegaConf.create({"temperature": 4.0})
    OmegaConf.set_struct(node, True)
    cause = ConfigAttributeError("no such key")
    cause.parent_node, cause.key = node, "temprature"
    error = ConfigCompositionException("Could not override 'loss.temprature'.")
    error.__cause__ = cause
    assert explain(error).endswith("'temprature': did you mean 'temperature'?")


def test_a_key_of_images_is_none_of_other_data(main):
    said = main("distill", "data=diabetes", "data.mix={_target_: tutelage.data.mix.Mix}")
    assert said.code == 1
    assert (
        "data.mix is a key of data of images (docs/data.md); tutelage.data.diabetes.Diabetes has none" in said.message
    )
    assert "append" not in said.message


def test_explain_names_the_nearest_choice():
    error = MissingConfigException("Could not find 'loss/soft_targt'", "loss/soft_targt", ["soft_target", "hard"])
    assert explain(error).endswith("'soft_targt': did you mean 'soft_target'?")


def test_explain_leaves_others_as_they_are():
    assert explain(TutelageError("that is it")) == "that is it"


def test_explain_names_the_key_of_what_could_not_be_built():
    cfg = OmegaConf.create({"student": {"net": {"_target_": "torch.nn.Dropout", "p": 2}}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg.student)
    assert explain(caught.value).startswith("student.net: dropout probability has to be between 0 and 1, but got 2")


def test_a_combination_that_lightning_refuses_is_a_user_s_to_mend():
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    error = MisconfigurationException("`x` needs\n `y`")
    assert is_users(error)
    assert explain(error) == "trainer or callbacks were rejected by Lightning: `x` needs `y`"
    assert not is_users(RuntimeError("ours"))
    assert not is_users(FileNotFoundError(2, "No such file", "x"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss._target_=torch.nn.CrossEntropyLoss", "'+loss.terms.mine={_target_: tutelage.objective.Term"),
        ("+loss._target_=torch.nn.CrossEntropyLoss", "'+loss.terms.mine={_target_: tutelage.objective.Term"),
        ("loss=torch.nn.CrossEntropyLoss", "'+loss.terms.mine={_target_: tutelage.objective.Term"),
        ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "'scheduler.scheduler={_target_: torch.optim"),
        ("optimizer=torch.optim.SGD", "optimizer._target_=torch.optim.SGD"),
        ("+callbacks._target_=my.Callback", "'+callbacks.mine={_target_: my_pkg.MyCallback}'"),
        ("model@student=my_pkg.Net", "by a yaml of yours and --config-dir"),
    ],
)
def test_a_class_where_none_can_be_given_says_how_one_is(main, tmp_path, override, said):
    answer = main("distill", override, "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "override",
    [
        "+loss.terms.mine={_target_: tutelage.objective.Term, loss: {_target_: torch.nn.MSELoss}, "
        "inputs: {input: student.logits}, targets: {target: teacher.logits}, weight: 0.5}",
        "scheduler.scheduler={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 10}",
        "optimizer._target_=torch.optim.SGD",
    ],
)
def test_and_what_it_says_composes(compose, override):
    check(compose(override))


@pytest.mark.parametrize("name", ["TerminatedWorkerError", "UncompletedJobError", "WorkerCrashedError"])
def test_a_launcher_s_process_that_was_killed_is_one_sentence(name):
    error = type(name, (RuntimeError,), {})("A worker was unexpectedly terminated.\n\nThe exit codes are {SIGKILL(-9)}")
    assert is_users(error)
    assert explain(error).startswith(
        "a process of the launcher that ran a job was killed, for want of memory perhaps: A"
    )
    assert "\n" not in explain(error)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("assistants=[]", "assistants=[]: expected a section with keys of its own, found a list"),
        ("data.mean={a: 1}", "data.mean={a: 1}: expected a list, found a section with keys of its own"),
        ("hydra.job.chdir=maybe", "hydra.job.chdir=maybe: Value 'maybe' is not a valid bool"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_is_expected(compose, word, said):
    with pytest.raises(ConfigCompositionException) as error:
        compose(word)
    assert explain(error.value).startswith(said)


def test_memory_is_guessed_at_only_where_a_worker_was_killed():
    lost = type("TerminatedWorkerError", (RuntimeError,), {})
    said = "A worker was lost.\nThe exit codes of the workers are {}\n"
    assert explain(lost(said.format("{SIGKILL(-9)}"))) == (
        "a process of the launcher that ran a job was killed, for want of memory perhaps: A worker was lost. "
        "(exit codes of workers: {SIGKILL(-9)})"
    )
    assert explain(lost(said.format("{SIGSEGV(-11)}"))).startswith(
        "a process of the launcher that ran a job was killed: A worker was lost. (exit codes"
    )


def test_a_link_to_nothing_is_a_sentence(tmp_path):
    link = tmp_path / "config.yaml"
    link.symlink_to(tmp_path / "absent" / "file")
    with pytest.raises(OSError, match="config") as error:
        link.write_text("")
    assert explain(error.value) == f"{link}: a link to what is not there; delete it"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("mix", "data.mix.mixup must be 0 or more; found -1"),
        ("other", "data.other: data.mix.mixup must be 0 or more; found -1"),
    ],
)
def test_the_place_is_said_once(key, said):
    config = OmegaConf.create({"data": {key: {"_target_": "tutelage.data.mix.Mix", "mixup": -1}}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(config.data[key])
    assert explain(caught.value) == said


def test_no_job_at_once_is_one_sentence():
    joblib = pytest.importorskip("joblib")
    with pytest.raises(ValueError, match="n_jobs") as caught:
        joblib.Parallel(n_jobs=0, backend="loky")(joblib.delayed(str)(n) for n in range(2))
    assert is_users(caught.value)
    assert explain(caught.value).startswith("hydra.launcher.n_jobs=0: expected a number")


def test_a_path_that_the_locale_has_no_letters_for_is_one_sentence(monkeypatch):
    with pytest.raises(UnicodeEncodeError) as caught:
        "n\udcc3".encode()
    assert not is_users(caught.value)
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    assert is_users(caught.value)
    assert explain(caught.value).endswith("set LC_ALL=C.UTF-8 or PYTHONUTF8=1")


def test_slurm_that_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        submitit.SlurmExecutor(tmp_path)
    assert is_users(caught.value)
    assert explain(caught.value).startswith("launcher=submitit_slurm: there is no SLURM here (no srun)")
