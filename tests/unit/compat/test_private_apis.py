"""The private APIs that tutelage.compat rests on are there, and nothing else in src/ uses any."""

import ast
import multiprocessing
import os
import time
from inspect import signature
from pathlib import Path

import lightning as L
import omegaconf
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.utils import JobReturn
from hydra.plugins.config_source import ConfigSource
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loops import fetchers
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import Node, OmegaConf
from omegaconf.errors import GrammarParseError
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree

import tutelage
from tutelage.compat import hydra as compat_hydra
from tutelage.compat import lightning as compat_lightning
from tutelage.compat import torch as compat_torch
from tutelage.compat.joblib import WORKER, worker_pids


def trainer(**arguments) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **arguments
    )


def compiled() -> nn.Module:
    net = nn.Linear(1, 1)
    net.compile(backend="eager")
    return net


def csv_logger() -> Logger:
    return CSVLogger("/nowhere")


# name → owner or what makes it, attribute: it must be there.
ATTRIBUTES = {
    "hydra JobReturn._return_value": (JobReturn, "_return_value"),
    "lightning Trainer._detect_anomaly": (trainer, "_detect_anomaly"),
    "lightning Trainer._val_check_time_interval": (
        lambda: trainer(val_check_interval="00:00:01:00"), "_val_check_time_interval"
    ),
    "lightning loops.fetchers._DataFetcher": (lambda: fetchers, "_DataFetcher"),
    "lightning loops.fetchers._PrefetchDataFetcher": (lambda: fetchers, "_PrefetchDataFetcher"),
    "lightning _TrainingEpochLoop._batches_that_stepped": (
        lambda: trainer().fit_loop.epoch_loop, "_batches_that_stepped"
    ),
    "lightning _TrainingEpochLoop.batch_progress": (lambda: trainer().fit_loop.epoch_loop, "batch_progress"),
    "lightning _TrainingEpochLoop.restarting": (lambda: trainer().fit_loop.epoch_loop, "restarting"),
    "lightning _TrainingEpochLoop.automatic_optimization.optim_progress.optimizer.step": (
        lambda: trainer().fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer, "step"
    ),
    "lightning DDPStrategy._ddp_kwargs": (DDPStrategy, "_ddp_kwargs"),
    "lightning ModelParallelStrategy._data_parallel_size": (ModelParallelStrategy, "_data_parallel_size"),
    "lightning Logger._experiment": (csv_logger, "_experiment"),
    "lightning LightningOptimizer.optimizer": (lambda: LightningOptimizer, "optimizer"),
    "torch Module._compiled_call_impl": (compiled, "_compiled_call_impl"),
    "torch distributed_c10d._get_default_group": (lambda: dist.distributed_c10d, "_get_default_group"),
    "torch distributed._broadcast_coalesced": (lambda: dist, "_broadcast_coalesced"),
    "torch _C._are_functorch_transforms_active": (lambda: torch._C, "_are_functorch_transforms_active"),
    "torch _C._jit_onnx_log": (lambda: torch._C, "_jit_onnx_log"),
    "torch nn.modules.batchnorm._BatchNorm": (lambda: nn.modules.batchnorm, "_BatchNorm"),
}  # fmt: skip
# name → function, its parameters: it is called, or overridden, with these.
SIGNATURES = {
    "lightning _TrainingEpochLoop.__init__": (
        _TrainingEpochLoop.__init__, ["self", "trainer", "min_steps", "max_steps"]
    ),
    "lightning _TrainingEpochLoop.on_run_start": (_TrainingEpochLoop.on_run_start, ["self", "data_fetcher"]),
    "lightning _TrainingEpochLoop.advance": (_TrainingEpochLoop.advance, ["self", "data_fetcher"]),
    "lightning _TrainingEpochLoop.on_advance_end": (_TrainingEpochLoop.on_advance_end, ["self", "data_fetcher"]),
    "lightning _TrainingEpochLoop.update_lr_schedulers": (
        _TrainingEpochLoop.update_lr_schedulers, ["self", "interval", "update_plateau_schedulers"]
    ),
    "lightning ModelParallelStrategy._configure_launcher": (ModelParallelStrategy._configure_launcher, ["self"]),
    "omegaconf base.parse": (omegaconf.base.parse, ["value", "parser_rule", "lexer_mode"]),
    "omegaconf _utils.parse": (omegaconf._utils.parse, ["value", "parser_rule", "lexer_mode"]),
    "omegaconf Node._get_full_key": (Node._get_full_key, ["self", "key"]),
    "hydra ConfigSource.load_config": (ConfigSource.load_config, ["self", "config_path"]),
    "hydra Hydra.get_mode": (Hydra.get_mode, ["self", "config_name", "overrides"]),
    "hydra defaults_list._create_interpolation_map": (
        defaults_list._create_interpolation_map, ["overrides", "defaults_list", "self_added"]
    ),
    "hydra SourcesRegistry.resolve": (SourcesRegistry.resolve, ["self", "scheme"]),
    "torch Module._apply": (nn.Module._apply, ["self", "fn", "recurse"]),
    "torch Module._save_to_state_dict": (
        nn.Module._save_to_state_dict, ["self", "destination", "prefix", "keep_vars"]
    ),
    "torch Module._load_from_state_dict": (
        nn.Module._load_from_state_dict,
        ["self", "state_dict", "prefix", "local_metadata", "strict", "missing_keys", "unexpected_keys", "error_msgs"],
    ),
    "torch DistributedDataParallel._set_params_and_buffers_to_ignore_for_model": (
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model, ["module", "params_and_buffers_to_ignore"]
    ),
    "torch utils._pytree.tree_map_only": (
        _pytree.tree_map_only, ["type_or_types_or_pred", "func", "tree", "is_leaf"]
    ),
}  # fmt: skip


def changes(attributes: dict, signatures: dict) -> dict[str, str]:
    """Name → what became of a private API, of those that are no longer as they were."""
    found = {}
    for name, (owner, attribute) in attributes.items():
        if not hasattr(owner(), attribute):
            found[name] = "is gone"
    for name, (function, parameters) in signatures.items():
        if (now := list(signature(function).parameters)) != parameters:
            found[name] = f"takes {now}, took {parameters}"
    return found


@pytest.mark.parametrize("name", [*ATTRIBUTES, *SIGNATURES])
def test_the_private_api_is_as_it_was(name):
    own = [{key: one for key, one in table.items() if key == name} for table in (ATTRIBUTES, SIGNATURES)]
    assert not changes(*own)


def test_a_private_api_that_changed_is_named():
    gone = {"torch nn.no_such_name": (lambda: nn, "no_such_name")}
    other = {"torch Module._apply": (nn.Module._apply, ["self", "fn"])}
    assert changes(gone, other) == {
        "torch nn.no_such_name": "is gone",
        "torch Module._apply": "takes ['self', 'fn', 'recurse'], took ['self', 'fn']",
    }


# Documented: a namedtuple's _replace, os._exit, and the hooks that torch's docstrings give to subclasses.
PUBLIC = {"_replace", "_exit", "_save_to_state_dict", "_load_from_state_dict"}
SOURCES = sorted(
    path
    for package in ("tutelage", "hydra_plugins")
    for path in (Path(tutelage.__file__).parents[1] / package).rglob("*.py")
    if path.parent.name != "compat"
)


def is_private(name: str) -> bool:
    """Hydra's keys, such as ``_target_``, end with an underscore."""
    return name.startswith("_") and not name.endswith("_")


def foreign(text: str) -> list[str]:
    """The private names that a file reads or changes and does not define itself."""
    nodes = list(ast.walk(ast.parse(text)))
    own, named = set(PUBLIC), []
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                own |= {part.attr for part in ast.walk(target) if is_own(part)}
                own |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            named.append(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            named += (getattr(node, "module", None) or "").split(".")
            named += [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            named += [one.value for one in node.args[1:2] if isinstance(one, ast.Constant)]
    return [name for name in named if is_private(name) and name not in own]


def is_own(node: ast.AST) -> bool:
    """Checks whether a node is ``self.<name>``, assigned."""
    assigned = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    return assigned and isinstance(node.value, ast.Name) and node.value.id == "self"


def test_no_private_api_of_others_is_used_outside_compat():
    found = {str(path): foreign(path.read_text()) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "trainer._detect_anomaly",
        "trainer._detect_anomaly = True",
        "self._steps += 1",
        "self._modules['a'] = None",
        "from torch.utils._pytree import tree_map",
        "import hydra._internal",
        "getattr(net, '_compiled_call_impl', None)",
    ],
)
def test_a_private_api_in_a_file_is_found(line):
    assert foreign(line)


@pytest.mark.parametrize(
    "line", ["node._target_", "def _f(): pass\nx._f", "self._n = 1\nother._n", "super().__init__()"]
)
def test_names_of_its_own_and_hydras_keys_are_not(line):
    assert not foreign(line)


# -- what the functions do -------------------------------------------------------------------------------------------


def test_a_jobs_error_is_given_and_not_raised():
    error = ValueError("no")
    assert compat_hydra.job_result(JobReturn(_return_value=error)) is error


def test_a_nodes_key_counts_from_the_root():
    cfg = OmegaConf.create({"data": {"roots": ["a"]}})
    assert compat_hydra.full_key(cfg.data._get_node("roots")._get_node(0)) == "data.roots[0]"


@pytest.fixture
def settled(tmp_path):
    """Writes a yaml as one that was changed a while ago, each time a little later."""
    ages = iter(range(100, 0, -1))

    def write(content):
        path = tmp_path / "main.yaml"
        path.write_text(content)
        then = time.time() - next(ages)
        os.utime(path, (then, then))
        return file_source(tmp_path)

    return write


def file_source(folder):
    return SourcesRegistry.instance().resolve("file")("test", f"file://{folder}")


def test_a_yaml_is_parsed_once(settled, monkeypatch):
    compat_hydra.compose_quickly()
    source = settled("a: {b: 1}")
    first = source.load_config("main.yaml").config
    monkeypatch.setattr(OmegaConf, "load", None)
    assert source.load_config("main").config == first


def test_what_hydra_composes_from_is_parsed_once(compose, monkeypatch):
    compose()
    monkeypatch.setattr(OmegaConf, "load", None)
    assert compose("seed=3").seed == 3


def test_a_defaults_list_that_interpolates_is_composed_as_by_hydra(tmp_path):
    for name, text in {
        "main": "defaults: [_self_, net: small, widths: '${net}']", "net/small": "a: 1", "net/large": "a: 2",
        "widths/small": "defaults: [/net@c: small]\nb: 3", "widths/large": "b: 4",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    compat_hydra.compose_quickly()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert hydra_compose("main") == {"net": {"a": 1}, "widths": {"b": 3, "c": {"a": 1}}}
        assert hydra_compose("main", ["net=large"]) == {"net": {"a": 2}, "widths": {"b": 4}}


def test_an_interpolation_is_resolved_anew_though_parsed_once():
    compat_hydra.compose_quickly()
    config = OmegaConf.create({"a": 1, "b": "${a} of ${oc.env:NO_SUCH_NAME,${a}}", "c": "${d.${a}}"})
    assert config.b == "1 of 1"
    config.a = 2
    assert config.b == "2 of 2"
    for _ in range(2):
        with pytest.raises(GrammarParseError):
            assert OmegaConf.create({"a": "${b"}).a
    assert omegaconf.base.parse("${a}") is omegaconf.base.parse("${a}")


def composed(main, monkeypatch, *arguments):
    """Returns the run mode of each composition of a command's config, and the message."""
    found = []
    own = ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_configuration",
        lambda self, **given: found.append(given["run_mode"].name) or own(self, **given),
    )
    answer = main("distill", *arguments, "hydra.run.dir=run")
    assert answer.code == 1, "what is refused is enough"
    return found, answer.message


def test_a_command_composes_its_config_once(main, monkeypatch):
    found, message = composed(main, monkeypatch, "loss.alpha=7")
    assert found == ["RUN"]
    assert "loss.alpha must be a number" in message


@pytest.mark.parametrize("text", ["hydra: {mode: MULTIRUN}", "hydra:\n  # sweeps\n  mode: MULTIRUN"])
def test_a_mode_in_a_yaml_of_the_user_s_counts(main, monkeypatch, tmp_path, text):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "all.yaml").write_text(f"# @package _global_\n{text}\n")
    found, _ = composed(main, monkeypatch, "--config-dir", "mine", "experiment=all", "loss.alpha=7,8")
    assert found[:2] == ["MULTIRUN", "MULTIRUN"], "composed to learn the mode, then as a sweep"


def test_a_folder_of_many_files_is_not_searched(main, monkeypatch, tmp_path):
    (tmp_path / "mine" / "pictures").mkdir(parents=True)
    for number in range(2001):
        (tmp_path / "mine" / "pictures" / f"{number}.png").touch()
    found, _ = composed(main, monkeypatch, "--config-dir", "mine", "loss.alpha=7")
    assert found == ["MULTIRUN", "RUN"]


def test_a_mode_on_the_command_line_counts(main, monkeypatch):
    found, _ = composed(main, monkeypatch, "hydra.mode=MULTIRUN", "loss.alpha=7,8")
    assert found[:2] == ["MULTIRUN", "MULTIRUN"]


def test_a_change_of_a_parsed_config_stays_with_its_caller(settled):
    compat_hydra.compose_quickly()
    source = settled("a: {b: 1}")
    for _ in range(2):
        config = source.load_config("main").config
        assert config.a.b == 1
        config.a.b = 2


def test_a_yaml_that_changes_is_parsed_again(settled):
    compat_hydra.compose_quickly()
    assert settled("a: 1").load_config("main").config == {"a": 1}
    assert settled("a: 2").load_config("main").config == {"a": 2}


def test_a_yaml_that_was_changed_a_moment_ago_is_not_kept(tmp_path):
    compat_hydra.compose_quickly()
    source, path = file_source(tmp_path), tmp_path / "main.yaml"
    path.write_text("a: 1")
    now = path.stat()
    assert source.load_config("main").config == {"a": 1}
    path.write_text("a: 2")
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert source.load_config("main").config == {"a": 2}


def test_the_trainers_arguments_are_read():
    plain = trainer()
    assert not compat_lightning.detects_anomaly(plain)
    assert not compat_lightning.validates_by_time(plain)
    assert compat_lightning.detects_anomaly(trainer(detect_anomaly=True))
    assert compat_lightning.validates_by_time(trainer(val_check_interval="00:00:01:00"))


def test_a_module_hears_of_its_moves_after_them():
    class Heard(compat_torch.FollowsMoves):
        def after_move(self, convert):
            self.dtype = self.weight.dtype, convert(torch.ones(1)).dtype

    heard = Heard()
    heard.register_buffer("weight", torch.ones(1))
    assert nn.Sequential(heard).double()[0].dtype == (torch.float64, torch.float64)


def test_a_compiled_module_is_told_and_can_be_taken_back():
    net = compiled()
    assert compat_torch.is_compiled(net)
    compat_torch.undo_compile(net)
    assert not compat_torch.is_compiled(net)


def test_transforms_of_torch_func_are_noticed():
    seen = []
    torch.func.vmap(lambda x: seen.append(compat_torch.inside_functorch()) or x)(torch.ones(2))
    assert [*seen, compat_torch.inside_functorch()] == [True, False]


def _who() -> tuple[int, str]:
    return os.getpid(), multiprocessing.current_process().name


def test_joblib_has_the_pids_of_its_workers():
    joblib = pytest.importorskip("joblib", reason="needs the extra sweep")
    found = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(_who)() for _ in range(4))
    assert {pid for pid, _ in found} <= set(worker_pids())
    assert all(name.startswith(WORKER) for _, name in found)
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
