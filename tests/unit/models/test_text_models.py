"""Networks on token ids: padding never changes value or gradient, whatever stands there and wherever it stands."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.config.trust import vetted
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.models.bilstm import BiLSTM
from tutelage.models.tapped import Tapped
from tutelage.models.text_cnn import TextCNN
from tutelage.models.text_transformer import TextTransformer
from tutelage.models.word_vectors import Vectors

V, LENGTHS = 30, (7, 4, 1)
READS = {"input": "input", "mask": "mask?"}
NETS = {
    "text_cnn": lambda: TextCNN(V, 3, width=6, windows=(1, 2, 3), maps=4),
    "kim": lambda: TextCNN(V, 3, width=6, windows=(3, 4, 5), maps=4),
    "bilstm": lambda: BiLSTM(V, 3, width=6, hidden=4, layers=2, units=5),
    "post": lambda: TextTransformer(V, 3, width=8, heads=2, layers=2, length=16),
    "pre": lambda: TextTransformer(V, 3, width=8, heads=2, layers=2, length=16, norm="pre", pool="first"),
}
IDS = torch.arange(21).view(3, 7)
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def made(name):
    torch.manual_seed(0)
    return Tapped(NETS[name](), reads=READS).double().eval()


def learned(net, ids, mask):
    """Logits, and the gradient of a function of them by every weight."""
    net.zero_grad()
    logits = net({"input": ids, "mask": mask})["logits"]
    (logits * torch.arange(1.0, 4.0)).tanh().sum().backward()
    return logits, [p.grad for p in net.parameters() if p.grad is not None]


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NETS)
def test_what_stands_in_padding_changes_no_bit(name):
    net = made(name)
    logits, gradients = learned(net, IDS, MASK)
    for filler in (0, 29):
        other, others = learned(net, IDS.where(MASK, filler), MASK)
        assert torch.equal(other, logits)
        assert all(torch.equal(a, b) for a, b in zip(others, gradients, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_longer_padding_and_another_order_give_the_same(name):
    net = made(name)
    expected = learned(net, IDS, MASK)
    order = torch.tensor([2, 0, 1])
    ids = torch.cat([IDS, torch.full((3, 5), 9)], 1)[order]
    mask = torch.cat([MASK, torch.zeros(3, 5, dtype=torch.bool)], 1)[order]
    logits, _ = learned(net, ids, mask)
    assert_same(logits, expected[0][order])
    whole = learned(net, ids[order.argsort()], mask[order.argsort()])
    assert_same(whole, expected)


@pytest.mark.parametrize("name", ["text_cnn", "kim", "bilstm"])
def test_padding_may_stand_before_the_text(name):
    net = made(name)
    ids = torch.cat([torch.full((3, 2), 9), IDS], 1)
    mask = torch.cat([torch.zeros(3, 2, dtype=torch.bool), MASK], 1)
    assert_same(learned(net, ids, mask), learned(net, IDS, MASK))


@pytest.mark.parametrize("name", NETS)
def test_an_example_alone_is_the_same_as_in_a_batch(name):
    net = made(name)
    whole = net({"input": IDS, "mask": MASK})["logits"]
    for row, length in enumerate(LENGTHS):
        assert_same(net({"input": IDS[row : row + 1, :length]})["logits"], whole[row : row + 1])


@pytest.mark.parametrize("name", NETS)
def test_costs_are_counted_without_padding(name):
    net = made(name)
    assert multiply_adds(net.net, {"input": IDS, "mask": MASK}) == multiply_adds(net.net, {"input": IDS}) > 0


def test_the_cnn_is_kims_formula():
    net = TextCNN(V, 3, width=6, windows=(2,), maps=4).double().eval()
    table, (convolution,) = net.tokens.weight[IDS[:1, :4]], net.convolutions
    padded = torch.cat([table, torch.zeros(1, 1, 6)], 1)
    places = [
        (convolution.weight * padded[:, i : i + 2].mT).sum((1, 2)) + convolution.bias for i in range(4)
    ]  # fmt: skip
    feature = torch.stack(places).relu().amax(0)
    assert_same(net(IDS[:1, :4])[0], net.head.classifier(feature))


def test_one_layer_is_torchs():
    torch.manual_seed(0)
    for pre in (False, True):
        net = NETS["pre" if pre else "post"]().double().eval()
        own, theirs = net.layers[0], torch.nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=pre, dtype=torch.float64
        ).eval()  # fmt: skip
        packed = {
            name: torch.cat([getattr(getattr(own, part), name) for part in ("query", "key", "value")])
            for name in ("weight", "bias")
        }
        theirs.self_attn.in_proj_weight.data, theirs.self_attn.in_proj_bias.data = packed["weight"], packed["bias"]
        pairs = {"self_attn.out_proj": own.output, "linear1": own.inner[0], "linear2": own.inner[2],
                 "norm1": own.attention_norm, "norm2": own.inner_norm}  # fmt: skip
        for name, part in pairs.items():
            theirs.get_submodule(name).load_state_dict(part.state_dict())
        states = torch.randn(3, 7, 8, dtype=torch.float64)
        expected = theirs(states, src_key_padding_mask=~MASK)
        assert_same(own(states, MASK)[MASK], expected[MASK])


@pytest.mark.parametrize("name", ["text_cnn", "bilstm", "text_transformer"])
def test_a_yaml_takes_the_vocabulary_of_the_data(compose, name):
    text = ["data=dataset", "data.train={_target_: own_text.Sentences}", "data.test={_target_: own_text.Sentences}"]
    plan = check(compose(*text, f"model@teacher={name}", f"model@student={name}", "task=classification"))
    net = factory.network(plan.student.student, 0)
    assert net.net.get_submodule("embeddings.tokens" if name == "text_transformer" else "tokens").num_embeddings == V
    net.register_taps(["embedding"])
    assert net({"input": IDS, "mask": MASK})["embedding"].shape[0] == 3


def test_taps_of_the_transformer_are_what_losses_read(compose):
    cfg = compose("model@student=text_transformer", "student.net.vocab_size=30", "student.net.num_classes=2")
    net = factory.network(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)).student, 0).eval()
    names = ["embeddings", "layer0", "layer1", "query0", "key1", "value1"]
    net.register_taps(names)
    found = net({"input": IDS, "mask": MASK})
    assert all(found[name].shape == (3, 7, 128) for name in names)
    layer = net.net.layers[1]
    assert torch.equal(found["layer1"], layer(found["layer0"], MASK))
    assert torch.equal(found["key1"], layer.key(found["layer0"]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TextCNN(None, 3), "it needs vocab_size"),
        (lambda: TextCNN(V, 3, windows=()), "windows must name"),
        (lambda: TextCNN(V, 3)(torch.zeros(2, 3)), "reads token ids, integers"),
        (lambda: BiLSTM(20, 3)(IDS), "vocabulary of 20 ids; found the id 20"),
        (lambda: TextTransformer(V, 3, length=6)(IDS), "takes up to 6 tokens; found 7"),
        (lambda: TextTransformer(V, 3, width=10, heads=4), "multiple of the heads"),
        (lambda: TextTransformer(V, 3, norm="mid"), "expected post or pre, found 'mid'"),
    ],
)
def test_bad_input_is_one_sentence(make, said):
    with pytest.raises(TutelageError, match=said):
        make()


def vectors(folder, rows=4):
    np.save(folder / "emb.npy", np.arange(rows * 2, dtype=np.float32).reshape(rows, 2))
    (folder / "words.txt").write_text("the\nfilm\nis\nbad\n")
    (folder / "tokens").write_text("[PAD]\nFilm\n##bad\nthe\nodd\n")
    return Vectors(str(folder / "emb.npy"), str(folder / "tokens"), str(folder / "words.txt"))


def test_embeddings_of_words_come_from_a_file(tmp_path):
    net = BiLSTM(5, 2, vectors=vectors(tmp_path), train_vectors=False)
    assert net.tokens.weight.shape == (5, 2)
    assert net.tokens.weight[[1, 3]].tolist() == [[2.0, 3.0], [0.0, 1.0]]
    assert not net.tokens.weight.requires_grad
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text('{"model": {"vocab": {"film": 4, "the": 0}}}')
    other = BiLSTM(5, 2, vectors=Vectors(str(tmp_path / "emb.npy"), str(tokenizer), str(tmp_path / "words.txt")))
    assert other.tokens.weight[[4, 0]].tolist() == [[2.0, 3.0], [0.0, 1.0]]


@pytest.mark.parametrize("ending", ["txt", "vec", "npz"])
def test_vectors_are_read_from_files_of_glove_and_word2vec(tmp_path, ending):
    file, tokens, rows = tmp_path / f"v.{ending}", tmp_path / "tokens.txt", {"film": [1.0, 2.0], "plot": [-1.0, 0.5]}
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in rows.items()]
    if ending == "npz":
        np.savez(file, words=np.array(list(rows)), vectors=np.array(list(rows.values()), dtype=np.float32))
    else:
        file.write_text("\n".join(["2 2"] * (ending == "vec") + lines) + "\n")
    tokens.write_text("[PAD]\nfilm\nother\nplot\n")
    net = TextCNN(4, 2, vectors=Vectors(str(file), str(tokens)), train_vectors=False)
    assert net.tokens.weight[[1, 3]].tolist() == list(rows.values())
    assert not net.tokens.weight.requires_grad
    assert net(torch.tensor([[1, 2, 3]])).shape == (1, 2)


NO_VECTORS = {
    "film 1 2\nplot 1\n": "line 2 has 1 numbers, those before it 2",
    "film 1 nan\n": "vectors: that of 'film' in .* is not finite",
    "film a b\n": "is no text file of words and vectors",
    "": "has no vector",
}


@pytest.mark.parametrize(("content", "said"), NO_VECTORS.items())
def test_a_file_that_holds_no_vectors_is_one_sentence(tmp_path, content, said):
    (tmp_path / "v.txt").write_text(content)
    (tmp_path / "tokens.txt").write_text("film\n")
    with pytest.raises(TutelageError, match=said):
        TextCNN(4, 2, vectors=Vectors(str(tmp_path / "v.txt"), str(tmp_path / "tokens.txt")))


def test_a_file_of_weights_may_name_vectors(tmp_path):
    node = {"_target_": "tutelage.models.word_vectors.Vectors", "source": "v.txt", "tokens": "t.txt"}
    assert vetted({"_target_": "tutelage.models.bilstm.BiLSTM", "vectors": node}, "a file")["vectors"] == node


def test_vectors_that_do_not_fit_are_one_sentence(tmp_path):
    with pytest.raises(TutelageError, match=r"found 3 vectors .* and 4 words"):
        vectors(tmp_path, 3).rows()
    with pytest.raises(TutelageError, match="neither a file nor an installed package"):
        Vectors("no_such_package", "x").rows()
    with pytest.raises(TutelageError, match="must be the data's tokenizer"):
        BiLSTM(3, 2, vectors=vectors(tmp_path))


@pytest.mark.parametrize("kind", [TextCNN, BiLSTM])
def test_embeddings_of_words_start_as_small_as_kims(kind):
    """From N(0, 1) a classifier of sentences learns little more than the labels of its training texts."""
    table = kind(500, 2).tokens.weight.detach()
    assert table.abs().max() <= 0.25
    assert float(table.std()) == pytest.approx(0.5 / 12**0.5, rel=0.02)


@pytest.mark.parametrize("kind", [TextCNN, BiLSTM, lambda *sizes: TextTransformer(*sizes, width=8, layers=1, heads=2)])
def test_a_row_without_a_real_token_has_finite_logits_and_gradients_and_leaves_the_others_alone(kind):
    net, ids = kind(9, 2).eval(), torch.arange(6).view(2, 3)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    logits = net(ids, mask)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[0], net(ids[:1], mask[:1])[0])
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)
