"""README and docs: commands compose or run, Python runs, keys, tests and links are there, every choice has a row."""

import contextlib
import re
import runpy
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from corpora import write_texts
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pages import FENCE
from texts import movie_reviews

from tutelage.cli import main as console
from tutelage.config.paths import conf_dir
from tutelage.config.validate import check
from tutelage.errors import TutelageError

VERBS = [verb for verb in console.VERBS if Path(conf_dir(), f"{verb}.yaml").is_file()]  # those that Hydra composes
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NO_KEYS = {  # files, attributes, signals, parameters
    "teacher.pt", "student.about", "student.logits", "teacher.embedding", "student.stage1.0.weight",
    "loss.fitnet.regressor.weight", "peers.logits", "teacher.weights", "stages.teacher.data.long_tail",
    "stages.teacher.data.augment",
    "trainer.accumulate_grad_batches", "teacher.auto", "loss.teacher_layers", "loss.student_layers", "loss.padding",
    "loss.heads", "loss.norms", "teacher.path",
}  # fmt: skip
TABLES = {  # with a row for each choice
    "loss": "docs/losses.md", "sources": "docs/teachers.md", "data": "docs/data.md", "scheduler": "docs/optimizers.md",
    "condense": "docs/condensed_data.md", "quantise": "docs/quantised.md", "prune": "docs/quantised.md",
}  # fmt: skip
COMMAND = re.compile(r"(?:PYTHONPATH=\. )?tutelage (\w+.*)")
CHOICES = {group: sorted(Path(conf_dir(), group).glob("[!_]*.yaml")) for group in TABLES}


class Command(NamedTuple):
    """A line of a page, as a shell splits it."""

    verb: str
    arguments: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """Without Hydra's flags."""
        rest = list(self.arguments)
        if "--config-dir" in rest:
            at = rest.index("--config-dir")
            folder = rest[at + 1]
            rest[at : at + 2] = [f"hydra.searchpath=[file://{Path(folder).absolute()}]"]
        return [argument for argument in rest if not argument.startswith("-")]

    @property
    def config(self) -> str:
        """The config that its verb composes."""
        return "distill" if self.verb == "plan" else self.verb

    @property
    def sweeps(self) -> bool:
        return "-m" in self.arguments


def commands(text: str) -> Iterator[Command]:
    """Of a page, in fences and in the text."""
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    for line in lines + INLINE.findall(FENCE.sub("", text)):
        if found := COMMAND.fullmatch(line.strip()):
            verb, *arguments = shlex.split(found[1], comments=True)
            yield Command(verb, tuple(arguments))


def files(folder: Path) -> list[Path]:
    """Writes the files that the pages show: blocks whose first line is a comment with a path."""
    made = []
    for text in TEXT.values():
        for language, block in FENCE.findall(text):
            if language and (found := re.match(r"# (\S+\.\w+)\n", block)):
                made.append(folder / found[1])
                made[-1].parent.mkdir(parents=True, exist_ok=True)
                made[-1].write_text(block)
    return made


def label(command: Command) -> str:
    return " ".join([command.verb, *command.arguments])[:80]


COMMANDS = list(dict.fromkeys(command for text in TEXT.values() for command in commands(text)))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A folder of data with as many movie reviews as ``data=movie_reviews`` divides."""
    return movie_reviews(tmp_path_factory.mktemp("data"), 3600)


@pytest.fixture(scope="module")
def written(tmp_path_factory, sentences):
    """A folder with the files that the pages show, and what their scripts write."""
    folder = tmp_path_factory.mktemp("shown")
    made = files(folder)
    (folder / "data").symlink_to(sentences)
    with contextlib.chdir(folder):
        for script in (path for path in made if path.name.startswith("write_")):
            runpy.run_path(str(script))
    return folder, made


@pytest.fixture
def shown(written, monkeypatch):
    """The folder of these files as the current one and on the path."""
    folder, made = written
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield made
    for name in {path.relative_to(folder).parts[0].removesuffix(".py") for path in made}:
        for module in [known for known in sys.modules if known.split(".")[0] == name]:
            del sys.modules[module]


def values(override: Override) -> Iterator[object]:
    """Yields the values of a key; of an interval, its ends."""
    if override.is_interval_sweep():
        return iter((override.value().start, override.value().end))
    return override.sweep_string_iterator()


def jobs(command: Command, compose: Callable[..., DictConfig]) -> list[tuple[list[str], DictConfig]]:
    """The overrides and the config of the job; of a sweep of its last one, which has the last value of each key."""
    if not command.sweeps:
        return [(command.overrides, compose(*command.overrides, config=command.config))]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(command.overrides)
        swept = [
            [f"{one.input_line.split('=')[0]}={value}" for value in values(one)]
            for one in parsed
            if one.is_sweep_override()
        ]
    fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    compose(*fixed, config=command.config)  # Hydra begins with the config without the swept keys
    each = [[*fixed, *(one[-1] for one in swept)]] if all(swept) else []
    return [(overrides, compose(*overrides, config=command.config)) for overrides in each]


def examine(command: Command, compose: Callable[..., DictConfig], known: set[str]) -> None:
    """Raises where a key, a choice or an argument is not there, or a sweep is empty."""
    found = jobs(command, compose)
    if not found:
        raise TutelageError(f"{command} has no job")
    for overrides, cfg in found:
        if strange := {str(name) for name in cfg} - known:
            raise TutelageError(f"nothing reads {strange}")
        if command.verb not in ("budget", "evaluate", "condense", "export", "predict"):
            check(cfg, [one for one in overrides if one.startswith("+") and "@" not in one and "/" not in one])


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every key of all verbs and of all yamls of the groups that the pages speak of."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        verbs = [OmegaConf.to_container(hydra_compose(verb)) for verb in VERBS]
    found = {key for verb in verbs for key in keys(verb)}
    for group in CHOICES:
        for path in Path(conf_dir(), group).rglob("*.yaml"):  # those that choices share, too
            place = "" if path.read_text().startswith("# @package _global_") else f"{group}."
            found.update(keys(OmegaConf.to_container(OmegaConf.load(path)), place))
    return found


def keys(node: object, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{path}{name}"
            yield from keys(value, f"{path}{name}.")


def test_the_pages_have_commands():
    assert len(COMMANDS) > 30
    assert len(RUN) > 15
    assert all(any(commands(text)) for name, text in TEXT.items() if name != "docs/api.md")
    assert {command.verb for command in COMMANDS} == console.VERBS.keys()


def composed() -> Iterator[Any]:
    """Commands whose config is composed; long are those of further pages, and those that read thousands of texts."""
    first = {command for page in ("README.md", "docs/start.md") for command in commands(TEXT[page])}
    for command in COMMANDS:
        if command.config in VERBS:
            reads = any("movie_reviews" in argument for argument in command.arguments)
            later = reads or command not in first
            yield pytest.param(command, marks=pytest.mark.long if later else (), id=label(command))


@pytest.mark.parametrize("command", [*composed()])
def test_a_command_composes(command, compose, known, shown, tmp_path):
    if "experiment=python_docs_lm" in command.arguments:  # reads a folder of a Debian package
        write_texts(tmp_path / "tutorial", 400)
        command = Command(command.verb, (*command.arguments, f"data.root={tmp_path}"))
    examine(command, compose, known)


@pytest.mark.parametrize(
    "line",
    [
        "distill loss.temprature=8", "distill loss=soft_targets", "distill sources=ensemble ensemble.sise=3",
        "distill +model@asistants.first=cnn", "distill '+teachr.adapter={_target_: torch.nn.Flatten}'",
        "distill 'data.unlabelled=[{_target_: tutelage.data.unlabelled.Npz, path: a.npz, aray: x}]'",
        "distill 'data.augment=[{_target_: tutelage.data.augment.Shft, pixels: 1}]'",
        "distill -m 'experiment=glob(cifar100/*/*)'", "distill -m data=mnist,cifar10 data.rooot=a",
        "distill -m 'sed=range(0,3)'", "cache sources.teacher.tpo=5", "evaluate chekpoint=a",
    ],
)  # fmt: skip
def test_a_misspelt_command_is_found(line, compose, known):
    verb, *arguments = shlex.split(line)
    with pytest.raises((HydraException, OmegaConfBaseException, TutelageError)):
        examine(Command(verb, tuple(arguments)), compose, known)


def test_every_key_in_the_text_is_one(known):
    roots = {key for key in known if "." not in key}
    found_at_all: list[str] = []
    for page, text in TEXT.items():
        words = {word for span in INLINE.findall(FENCE.sub("", text)) for word in span.split()}
        dotted = [found[1] for word in words if (found := re.fullmatch(r"(\w+(?:\.\w+)+)(?:=.*)?", word))]
        dotted = [key for key in dotted if key.split(".")[0] in roots and key not in NO_KEYS]
        found_at_all += dotted
        assert set(dotted) <= known, page
    assert len(found_at_all) > 50


@pytest.mark.parametrize("group", CHOICES)
def test_every_choice_has_a_row(group):
    spans = {word for span in INLINE.findall(TEXT[TABLES[group]]) for word in span.split()}
    for path in CHOICES[group]:
        assert {path.stem, f"{group}={path.stem}"} & spans, f"{group}={path.stem} has no row"


def test_the_readme_links_every_page():
    """The results through their table."""
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", TEXT["README.md"]))
    results = {f"docs/results/{name}" for name in re.findall(r"\]\((\w+\.md)", TEXT["docs/results/index.md"])}
    assert linked | results == TEXT.keys() - {"README.md"}


def test_the_readme_is_short():
    assert len(TEXT["README.md"].splitlines()) < 100


def test_every_test_and_every_file_that_a_page_names_is_there():
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for page in PAGES:
        named = set(re.findall(r"\btest_\w+\.py", page.read_text()))
        assert named <= tests, page
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if not target.startswith("http") and not target.startswith("#"):
                assert (page.parent / target.split("#")[0]).exists(), f"{page}: {target}"


# Those that need a file which a page shows; the others' likes are run by the tests that the tables name.
RUN = [
    one
    for one in COMMANDS
    if one.verb == "distill" and re.search(r"my_\w+|teacher\.npz|more\.npz", " ".join(one.arguments))
]
QUICK = ("trainer.max_epochs=1", "stages.teacher.trainer.max_epochs=1", "logger=none", "callbacks.progress=null")


@pytest.mark.long
@pytest.mark.parametrize("command", RUN, ids=label)
def test_a_command_runs(command, main, shown, tmp_path, monkeypatch):
    shutil.copytree(Path.cwd(), tmp_path, symlinks=True, dirs_exist_ok=True)  # it writes
    monkeypatch.chdir(tmp_path)
    answer = main(command.verb, *command.arguments, *QUICK)
    assert answer.code == 0, answer.message


SNIPPETS = {  # of each page, in order: without the files that it shows, which commands run
    name: [block for language, block in FENCE.findall(text) if language == "python" and not block.startswith("# ")]
    for name, text in TEXT.items()
    if name != "README.md"  # tests/unit/test_api.py runs it
}


def test_the_pages_have_snippets():
    assert {name for name, blocks in SNIPPETS.items() if blocks} == {
        "docs/start.md", "docs/concepts.md", "docs/after_training.md", "docs/extend.md",
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("page", [name for name, blocks in SNIPPETS.items() if blocks])
def test_the_python_of_a_page_runs(page, main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if any("outputs/mine" in block for block in SNIPPETS[page]):
        assert main("distill", "hydra.run.dir=outputs/mine", "model@teacher=mlp", *QUICK).code == 0
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in SNIPPETS[page]:
            exec(block, names)
