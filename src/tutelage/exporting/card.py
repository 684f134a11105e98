"""The page ``README.md`` beside exported files: what the network is, what it measures, how each file is loaded."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.exporting.safetensors import library_target, maker
from tutelage.exporting.table import heads, legend, rows
from tutelage.tasks.figure_kinds import TaskFigures

_LIBRARIES = {"tutelage.models.timm.create": "timm", "tutelage.models.hugging_face.tapped": "transformers"}
_MOST_NAMES = 20
_PIXELS = {
    None: "normalised, (x - mean) / std of pixels from 0 to 1",
    "unit": "raw pixels from 0 to 1, which the files normalise",
    "bytes": "raw pixels from 0 to 255 (uint8), which the files normalise",
}


def card(
    document: Mapping[str, Any], run: Mapping[str, Any], provenance: Mapping[str, Any], beside: Sequence[str],
    roles: Mapping[str, str],
) -> str:  # fmt: skip
    """Returns the page as markdown.

    Args:
        document: content of ``export.json``.
        run: ``metrics.json`` of the run that trained the network; empty where it is not known.
        provenance: ``provenance.json`` of that run; empty likewise.
        beside: names of the files beside the network's.
        roles: of the networks of a run, with what they are called.
    """
    node = maker(document["about"])
    library = _LIBRARIES.get(library_target(document["about"]), "tutelage")
    name = node.get("name") or node.get("auto") or str(node.get("_target_", "network")).rpartition(".")[2]
    parts = [
        f"---\nlibrary_name: {library}\ntags: [knowledge-distillation, tutelage]\n---",
        f"# {name}, {document['task']['name'].replace('_', ' ')}",
        "\n".join(_facts(document)),
        "## Measured",
        _headline(document),
        _markdown([heads(document), *rows(document)]),
        legend(document),
        *_of_run(run, roles),
        "## Provenance",
        "\n".join(_provenance(document, provenance)),
        "## Loading",
        *_loading(document, library, beside),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(document: Mapping[str, Any]) -> Iterator[str]:
    about = document["described"]
    yield f"* Parameters: {document['parameters']:,}" + (
        f"; multiply-adds of an example: {document['multiply_adds']:,}" if document["multiply_adds"] else ""
    )
    yield f"* Takes: {', '.join(about['fields'])}; an example's shape is {about['input_shape']}."
    if about["mean"]:
        taken = _PIXELS[about["preprocess"]]
        yield f"* Images: {taken}; mean {about['mean']}, std {about['std']}."
    names = about["class_names"]
    if names:
        shown = ", ".join(map(str, names[:_MOST_NAMES])) + (" …" if len(names) > _MOST_NAMES else "")
        yield f"* Outputs ({len(names)}): {shown}"


def _headline(document: Mapping[str, Any]) -> str:
    if (found := document["headline"]) is None:
        return ""
    kind = TaskFigures.of(document).main
    value, low, high = (kind.text(found[key]) for key in ("value", "low", "high"))
    unit = " %" if kind.percent else ""
    return (
        f"{document['split'].capitalize()} {kind.title}: {value}{unit} ({low} to {high}{unit}: 95 % interval over its "
        "examples, not over trainings)."
    )


def _of_run(run: Mapping[str, Any], roles: Mapping[str, str]) -> Iterator[str]:
    """Yields the figures of the run that trained the network, last and best weights on test."""
    if "student" not in run:
        return
    kind, name = TaskFigures.of(run).main, TaskFigures.of(run).headline
    lines = [["", "parameters", "test, last weights", "test, best on validation"]]
    for role, title in roles.items():
        if entry := run.get(role):
            values = [kind.text(entry[weights]["test"][name]) for weights in ("last", "best")]
            lines.append([title, f"{entry['parameters']:,}", *values])
    yield "## Trained beside"
    yield f"{kind.title}{', %' if kind.percent else ''}, from one run with one seed ({run.get('seed')})."
    yield _markdown(lines)


def _provenance(document: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterator[str]:
    about = document["about"]
    yield f"* Stage {about.get('stage')}, epoch {about.get('epoch')}, seed {about.get('seed')}."
    yield f"* Weights, SHA-256: `{document['weights']}`"
    if about.get("content"):
        yield f"* Data, SHA-256: `{about['content']}`"
    if provenance:
        yield f"* Overrides: `{' '.join(map(str, provenance.get('overrides') or [])) or 'none'}`"
        versions = ", ".join(f"{name} {one}" for name, one in (provenance.get("versions") or {}).items() if one)
        yield f"* {versions}; Python {provenance.get('python')}; {provenance.get('machine')}"
        yield f"* Commit of Tutelage: {provenance.get('commit') or 'not known'}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *others = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    rules = ["---" if not place else "---:" for place in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rules, *others))


def _loading(document: Mapping[str, Any], library: str, beside: Sequence[str]) -> Iterator[str]:
    """Yields how each file is loaded without Tutelage; of networks of its own, what is needed of it."""
    formats, fields = document["formats"], document["described"]["fields"]
    if "tokenizer.json" in beside:
        yield '`tokenizer.json` makes token ids of texts: `tokenizers.Tokenizer.from_file("tokenizer.json")`.'
    if "safetensors" in formats:
        yield _WEIGHTS[library].format(auto=maker(document["about"]).get("auto", "AutoModel"))
    given = json.dumps(dict.fromkeys(fields, "…"), ensure_ascii=False).replace('"…"', "…")
    for name in ("onnx", "int8"):
        if name in formats:
            yield (
                f'```python\nsession = onnxruntime.InferenceSession("{formats[name]["file"]}")\n'
                f"logits = session.run(None, {given})[0]\n```"
            )
    if "torch_export" in formats:
        yield (
            f'```python\nprogram = torch.export.load("{formats["torch_export"]["file"]}").module()\n'
            f"logits = program({', '.join(fields)})\n```"
        )


_WEIGHTS = {
    "timm": '```python\nnet = timm.create_model("local-dir:/this/folder", pretrained=True).eval()\n```',
    "transformers": '```python\nnet = transformers.{auto}.from_pretrained("/this/folder")\n```',
    "tutelage": (
        '```python\nnet = tutelage.load("model.safetensors")  # or, into a network of the same names of weights:\n'
        'net.load_state_dict(safetensors.torch.load_file("model.safetensors"))\n```'
    ),
}
