"""MkDocs hooks: generate a page for each method, show files of the repository's root, keep links working on the site.

Nothing that they make is checked in: a method's page is its class's docstring, its yaml and its rows in ``losses.md``.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PROJECT = {
    "benchmarks/RESULTS.md": "project/results.md",
    "LOG.md": "project/log.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
}
HEADINGS = {  # package of losses → heading in the navigation
    "feature": "Features",
    "relation": "Relations",
    "dense": "Dense prediction",
    "regression": "Regression",
    "text": "Text encoders",
    "language": "Language models",
    "online": "Peers, branches and exits",
    "adversarial": "Discriminators",
    "data_free": "Without data",
}
GROUPS = {  # folder of yamls → heading
    "multilabel": "Multi-label",
    "regression": "Regression",
    "segmentation": "Dense prediction",
    "text": "Text encoders",
    "online": "Peers, branches and exits",
    "adversarial": "Discriminators",
    "data_free": "Without data",
}
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
ROLE = re.compile(r":(?:func|class|mod|meth|data):<code>~?([\w.]+)</code>")


class Row(NamedTuple):
    """A row of a table, with the heads of its columns and the section of the page it stands in."""

    section: str
    heads: list[str]
    cells: list[str]


def rows(text: str) -> Iterator[Row]:
    """Yields the rows of all tables of a page."""
    section, heads = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not line.startswith("|"):
            heads = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not heads:
            heads = cells
        elif set(cells[0]) - set("-: "):
            yield Row(section, heads, cells)


def method_page(name: str) -> str:
    """Returns the page of ``loss=<name>`` as markdown.

    Raises:
        ValueError: ``docs/losses.md`` has no row for the method.
    """
    config = (ROOT / "conf" / "loss" / f"{name}.yaml").read_text()
    found = [row for row in rows((ROOT / "docs" / "losses.md").read_text()) if f"`{name}`" in row.cells[0].split(", ")]
    if not found:
        raise ValueError(f"docs/losses.md has no row for `{name}`")
    parts = [f"# {name}"]
    for row in found:
        pairs = [pair for pair in zip(row.heads[1:], row.cells[1:], strict=False) if pair[1] not in ("", "–")]
        parts.append("\n".join(f"* {head}: {cell}" for head, cell in pairs))
    parts.append(f"```\ntutelage distill loss={name}\n```")
    packages = "|".join(["logit", *HEADINGS])
    targets = dict.fromkeys(re.findall(rf"_target_: (tutelage\.losses\.(?:{packages})\.[\w.]+)", config))
    options = (
        "    options: {members: false, show_root_full_path: false, show_bases: false}"  # a base may be on several pages
    )
    parts += [f"::: {target}\n{options}" for target in targets]
    parts.append(f"## conf/loss/{name}.yaml\n\n```yaml\n{config}```")
    return "\n\n".join(parts) + "\n"


def methods() -> list[str]:
    """Returns the names of all losses that have a yaml."""
    folder = ROOT / "conf" / "loss"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("[!_]*.yaml"))


def kind(name: str) -> str:
    """Returns the heading of the navigation under which ``loss=<name>`` stands."""
    if (group := name.partition("/")[0]) in GROUPS:
        return GROUPS[group]
    config = (ROOT / "conf" / "loss" / f"{name}.yaml").read_text()
    found = re.search(rf"tutelage\.losses\.({'|'.join(HEADINGS)})\.", config)
    return HEADINGS[found[1]] if found else "Logits"


def relink(text: str, source: str, at: str) -> str:
    """Points links at where the site has their files; links to files that it doesn't have become plain text.

    Args:
        text: markdown.
        source: the file it was written in, from the repository's root.
        at: the page it is shown on, from ``docs/``.
    """

    def replace(link: re.Match[str]) -> str:
        target, _, anchor = link[2].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not target or ":" in target or not (ROOT / path).exists():
            return link[0]
        inside = path.removeprefix("docs/") if path.startswith("docs/") else PROJECT.get(path)
        if inside is None or inside.endswith(".py"):
            return link[1]
        place = posixpath.relpath(inside, posixpath.dirname(at) or ".")
        return f"[{link[1]}]({place}{'#' + anchor if anchor else ''})"

    return LINK.sub(replace, text)


def on_config(config: Any) -> Any:
    """Lists the methods in the navigation."""
    for entry in config["nav"]:
        if "Methods" in entry:
            for heading in dict.fromkeys(("Logits", *HEADINGS.values(), *GROUPS.values())):
                names = [name for name in methods() if kind(name) == heading]
                if names:
                    entry["Methods"].append({heading: [{name: f"methods/{name}.md"} for name in names]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    pages = {
        f"methods/{name}.md": relink(method_page(name), "docs/losses.md", f"methods/{name}.md") for name in methods()
    }
    for source, at in PROJECT.items():
        if at.startswith("project/"):
            pages[at] = relink((ROOT / source).read_text(), source, at)
    for at, content in pages.items():
        files.append(File.generated(config, at, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mends the links of pages that are files of ``docs/``; generated ones are right."""
    at = page.file.src_uri
    return markdown if page.file.generated_by else relink(markdown, f"docs/{at}", at)


def on_page_content(html: str, **_: Any) -> str:
    """Shows Sphinx's roles in docstrings as code."""
    return ROLE.sub(lambda role: f"<code>{role[1].rsplit('.', 1)[-1]}</code>", html)
