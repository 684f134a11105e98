"""Every format holds the network: its answers, its size, and what can't be written."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from command import environment
from torch import nn

from tutelage import TutelageError
from tutelage.compat import torch as compat
from tutelage.exporting import base
from tutelage.exporting.formats import FORMATS, chosen
from tutelage.exporting.safetensors import _of_timm, library_target
from tutelage.exporting.subject import FromPixels, Subject, fields_of
from tutelage.models.bilstm import BiLSTM
from tutelage.models.causal_lm import CausalLM
from tutelage.models.mlp import MLP
from tutelage.models.text_cnn import TextCNN
from tutelage.models.text_transformer import TextTransformer
from tutelage.pipeline.described import files_beside

MEAN, STD = [0.25], [0.5]
TOLERANCE = 1e-5


@pytest.fixture
def old_exporter(monkeypatch):
    """Without onnxscript, whose exporter takes seconds for the smallest network."""
    monkeypatch.setattr(compat, "find_spec", lambda name: None)


def batch(rows: int = 5) -> dict[str, torch.Tensor]:
    whole = torch.rand(5000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = (whole * 255).round() / 255
    return {"input": ((levels - MEAN[0]) / STD[0])[:rows], "key": torch.arange(rows)}


def subject(net: nn.Module, sample: dict[str, torch.Tensor], pixels: str | None = None, texts: bool = False) -> Subject:
    about = {"class_names": [], "fields": [], "preprocess": pixels}
    raw = FromPixels(pixels, MEAN, STD) if pixels else None
    return Subject(net.eval(), fields_of(net, sample), raw, about, {}, lambda path: net, texts)


def answers(one: str, made: Subject, folder, sample) -> torch.Tensor:
    FORMATS[one].write(made, folder, lambda: [sample])
    runtime = FORMATS[one].runtime(made, folder)
    with torch.no_grad():
        return runtime(**{name: sample[name] for name in made.example})


@pytest.mark.parametrize("pixels", [None, "unit", "bytes"])
@pytest.mark.parametrize("one", ["onnx", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_a_file_answers_as_the_network_for_any_size_of_batch(one, pixels, tmp_path, old_exporter):
    net, sample = MLP([1, 8, 8], [8], 3), batch()
    made = subject(net, sample, pixels)
    found = answers(one, made, tmp_path, sample)
    assert torch.allclose(found, net(sample["input"]), atol=TOLERANCE)
    assert made.arguments(sample)[0].dtype == (torch.uint8 if pixels == "bytes" else torch.float32)


def test_onnx_takes_what_its_description_says(tmp_path, old_exporter):
    net, sample = MLP([1, 8, 8], [8], 3), batch()
    answers("onnx", subject(net, sample, "bytes"), tmp_path, sample)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
        ("input", ["batch", 1, 8, 8], "tensor(uint8)")
    ]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    assert '"preprocess": "bytes"' in session.get_modelmeta().custom_metadata_map["tutelage"]


@pytest.mark.slow
def test_a_program_has_no_storage_but_its_weights(tmp_path):
    net, sample = MLP([1, 8, 8], [8], 3), batch(2)  # two rows of a tensor of 1.28 MB
    answers("torch_export", subject(net, sample), tmp_path, sample)
    assert (tmp_path / "model.pt2").stat().st_size < 60_000


def test_int8_is_near_and_its_weights_are_bytes(tmp_path, old_exporter):
    torch.manual_seed(0)
    net, sample = MLP([1, 8, 8], [64], 3), batch(64)
    found = answers("int8", subject(net, sample), tmp_path, sample)
    theirs = net(sample["input"])
    assert (found - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert not torch.equal(found, theirs)
    import onnx

    weights = onnx.load(tmp_path / "model.int8.onnx").graph.initializer
    assert sum(np.prod(one.dims) for one in weights if one.data_type == onnx.TensorProto.INT8) >= 64 * 64
    assert [path.name for path in tmp_path.iterdir()] == ["model.int8.onnx"]


TEXTS = {
    "input": torch.randint(1, 30, (4, 9), generator=torch.Generator().manual_seed(0)),
    "mask": torch.arange(9) < torch.tensor([[9], [4], [7], [9]]),
}


def reader(net: nn.Module) -> nn.Module:
    """A network of texts, as ``reads`` of a config makes it."""
    net.__dict__["_reads"] = {"input": "input", "mask": "mask?"}
    return net.eval()


def test_masks_of_attention_take_no_place_among_the_8_bits(tmp_path, old_exporter):
    torch.manual_seed(0)
    net = reader(TextTransformer(30, 3, 16, 2, 2, length=16))
    theirs = net(**TEXTS)
    found = answers("int8", subject(net, TEXTS, texts=True), tmp_path, TEXTS)
    assert (found - theirs).abs().max() < 0.05 * theirs.abs().max()


@pytest.mark.parametrize("one", ["onnx", pytest.param("torch_export", marks=pytest.mark.long)])
def test_texts_have_any_length(one, tmp_path, old_exporter):
    net = reader(TextTransformer(30, 3, 8, 1, 2, length=16))
    made = subject(net, TEXTS, texts=True)
    for width in (9, 5):
        sample = {name: x[:, :width] for name, x in TEXTS.items()}
        found = answers(one, made, tmp_path, sample)
        assert torch.allclose(found, net(**sample), atol=TOLERANCE)


@pytest.mark.long
def test_a_language_model_becomes_a_program_of_any_length_up_to_its_context(tmp_path):
    net = CausalLM([9], 30, width=8, depth=1, heads=2)
    for example in (9, 4):  # a program that is traced at the context's length must not have that one alone
        made = subject(net, {"input": TEXTS["input"][:, :example]}, texts=True)
        for width in (9, 5):
            sample = {"input": TEXTS["input"][:, :width]}
            assert torch.allclose(answers("torch_export", made, tmp_path, sample), net(sample["input"]), atol=TOLERANCE)


@pytest.mark.slow
def test_a_network_with_a_check_of_values_becomes_a_program(tmp_path):
    net = reader(TextCNN(vocab_size=30, num_classes=3))
    found = answers("torch_export", subject(net, TEXTS, texts=True), tmp_path, TEXTS)
    assert torch.allclose(found, net(**TEXTS), atol=TOLERANCE)
    with pytest.raises(TutelageError, match="vocabulary of 30 ids"):
        net(TEXTS["input"] + 30)


def test_preprocessing_that_stands_beside_weights_has_the_size_before_the_crop(tmp_path):
    timm = pytest.importorskip("timm")
    data = {"input_shape": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "resize": 256}
    subject = SimpleNamespace(net=timm.create_model("test_resnet"), header={"data": data}, about={"class_names": []})
    assert _of_timm(subject, tmp_path)["pretrained_cfg"]["crop_pct"] == 0.875
    found = json.loads(files_beside(subject.header, None, [])["preprocessor_config.json"])
    wanted = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    assert wanted.items() <= found.items()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ([3, 64, 64], {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
        ([3, 64, 48], {"size": {"height": 64, "width": 48}}),
    ],
)
def test_images_cover_a_square_and_are_cropped(shape, wanted):
    data = {"input_shape": shape, "mean": [0.5] * 3, "std": [0.5] * 3}
    found = json.loads(files_beside({"data": data}, None, [])["preprocessor_config.json"])
    assert {key: found[key] for key in ("size", "crop_size") if key in found} == wanted
    assert found.get("do_center_crop", False) == ("crop_size" in wanted)


def test_a_network_with_fewer_channels_is_none_of_its_library_s():
    network = {"_target_": "tutelage.models.tapped.Tapped", "net": {"_target_": "tutelage.models.timm.create"}}
    assert library_target({"network": network}) == "tutelage.models.timm.create"
    assert library_target({"network": network | {"channels": {"keep": 0.5}}}) == ""


class Sorted(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input.flatten(1).sort(dim=1, stable=True).values[:, :3]


def test_an_operator_that_onnx_lacks_is_one_sentence(tmp_path, old_exporter, capfd):
    with pytest.raises(TutelageError, match=r"format=onnx: Sorted can't be written as ONNX: .*operator Sort") as found:
        answers("onnx", subject(Sorted(), batch()), tmp_path, batch())
    assert "\n" not in str(found.value)
    assert not any(tmp_path.iterdir())
    assert capfd.readouterr().out == ""  # of torch's own code, which prints the graph


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bilstm_reads_padding_anywhere_in_texts_of_any_length(layers, tmp_path, old_exporter):
    net = reader(BiLSTM(vocab_size=30, num_classes=3, hidden=4, units=4, layers=layers))
    made, chance = subject(net, TEXTS, texts=True), torch.Generator().manual_seed(1)
    FORMATS["onnx"].write(made, tmp_path, list)
    runtime = FORMATS["onnx"].runtime(made, tmp_path)
    for width in (TEXTS["input"].shape[1], 1, 17):
        sample = {
            "input": torch.randint(30, (6, width), generator=chance),
            "mask": torch.rand(6, width, generator=chance) > 0.4,
        }
        sample["mask"][0] = False  # nothing but padding
        sample["mask"][1] = True
        assert torch.allclose(runtime(**sample), net(**sample), atol=1e-6)


class OfNodes(nn.Module):
    def forward(self, x: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return x[key]


def test_a_network_of_a_whole_graph_is_refused():
    net = OfNodes()
    net.__dict__["_reads"] = {"x": "input", "key": "key"}
    with pytest.raises(TutelageError, match="from the whole data"):
        fields_of(net, batch())


def test_weights_have_no_place_for_pixels(tmp_path):
    made = subject(MLP([1, 8, 8], [8], 3), batch(), "unit")
    with pytest.raises(TutelageError, match="safetensors holds weights"):
        FORMATS["safetensors"].write(made, tmp_path, list)


@pytest.mark.parametrize(
    ("names", "message"), [("onxx", "did you mean|onnx"), ([], "one or several of"), (["onnx", "tflite"], "'tflite'")]
)
def test_formats_that_are_not_there(names, message):
    with pytest.raises(TutelageError, match=message):
        chosen(names)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(TutelageError, match=r"format=int8 needs onnx: pip install 'tutelage\[onnx\]'"):
        chosen("int8")
    assert [one.name for one in chosen("torch_export")] == ["torch_export"]


def test_preprocess_has_two_kinds():
    with pytest.raises(TutelageError, match="unit or bytes"):
        FromPixels("pixels", MEAN, STD)


WITHOUT_US = """
import sys
sys.modules["tutelage"] = None  # as where it is not installed
import numpy as np, onnxruntime, torch
from safetensors.torch import load_file
x = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)
files = ("model.onnx", "model.int8.onnx")
onnx, int8 = (onnxruntime.InferenceSession(name).run(None, {"input": x})[0] for name in files)
program = torch.export.load("model.pt2").module()(torch.from_numpy(x))
state = {x.shape: x for x in load_file("model.safetensors").values()}  # into a network of one's own with other names
own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
own.load_state_dict({name: state[x.shape] for name, x in own.state_dict().items()})
np.save("found.npy", np.stack([onnx, program.detach().numpy(), own(torch.from_numpy(x)).detach().numpy()]))
np.save("int8.npy", int8)
"""


@pytest.mark.long
def test_files_load_without_tutelage(tmp_path, old_exporter):
    net, sample = MLP([1, 8, 8], [8], 3), batch()
    for one in FORMATS:
        answers(one, subject(net, sample), tmp_path, sample)
    subprocess.run([sys.executable, "-c", WITHOUT_US], check=True, cwd=tmp_path, env=environment())
    images = torch.linspace(-1, 1, 128).view(2, 1, 8, 8)
    assert np.abs(np.load(tmp_path / "found.npy") - net(images).detach().numpy()).max() < TOLERANCE
    ours = FORMATS["int8"].runtime(subject(net, sample), tmp_path)(input=images)
    assert np.abs(np.load(tmp_path / "int8.npy") - ours.numpy()).max() < TOLERANCE
