"""The documentation site: pages of methods, links, navigation (``make docs`` builds it)."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
LOSSES = ROOT / "conf" / "loss"
METHODS = sorted(str(path.relative_to(LOSSES).with_suffix("")) for path in LOSSES.rglob("[!_]*.yaml"))


def entries(nav):
    for entry in nav:
        for page in entry.values():
            yield from [page] if isinstance(page, str) else entries(page)


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_has_a_page_with_docstring_yaml_and_row(name):
    page, config = HOOKS["method_page"](name), (ROOT / "conf" / "loss" / f"{name}.yaml").read_text()
    assert config in page
    assert "* method: " in page
    assert ("::: tutelage.losses." in page) == ("tutelage.losses." in config)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "hard"])  # cross-entropy alone has no paper
def test_every_method_s_page_links_its_source(name):
    assert re.search(r"\]\(https?://", HOOKS["method_page"](name))


def test_a_method_s_page_has_its_published_numbers():
    page = HOOKS["method_page"]("dkd")
    assert "https://arxiv.org/abs/2203.08679" in page
    assert "* CIFAR-100: 1, α 1, β 8" in page
    assert "::: tutelage.losses.logit.dkd.DKD" in page


def test_the_navigation_has_every_method_by_kind():
    config = HOOKS["on_config"]({"nav": [{"Methods": []}]})
    headings = {heading: [*entries(pages)] for one in config["nav"][0]["Methods"] for heading, pages in one.items()}
    assert sorted(page for pages in headings.values() for page in pages) == [f"methods/{name}.md" for name in METHODS]
    assert {"methods/dkd.md", "methods/hard.md"} <= set(headings["Logits"])
    assert "methods/fitnet.md" in headings["Features"]
    assert "methods/rkd.md" in headings["Relations"]
    assert {"methods/cwd.md", "methods/segmentation/pixelwise.md"} <= set(headings["Dense prediction"])
    assert {"methods/online/dml.md", "methods/online/one.md"} <= set(headings["Peers, branches and exits"])
    assert "methods/adversarial/meal.md" in headings["Discriminators"]


def test_the_picture_of_the_schemes_is_what_its_code_draws():
    drawn = runpy.run_path(str(ROOT / "docs" / "results" / "schemes.py"))["picture"]()
    assert (ROOT / "docs" / "schemes.svg").read_text() == drawn


def test_links_lead_to_where_the_site_has_the_file():
    def relink(target):
        return HOOKS["relink"](f"[a]({target})", "docs/results/mine.md", "results/mine.md")

    assert relink("../../LOG.md") == "[a](../project/log.md)"
    assert relink("../data.md#cifar") == "[a](../data.md#cifar)"
    assert relink("../../conf/distill.yaml") == "a"
    assert relink("https://example.org") == "[a](https://example.org)"
    assert HOOKS["relink"]("[a](docs/gpu.md)", "CONTRIBUTING.md", "project/contributing.md") == "[a](../gpu.md)"


def test_every_page_is_in_the_navigation():
    listed = set(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages | {at for at in HOOKS["PROJECT"].values() if at.startswith("project/")}
