"""The decoder-only transformer: causal, its positions, taps, ties, and the numbers of its yamls."""

import math
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.losses.language.fused_linear import FusedLinear
from tutelage.losses.language.reverse_kl import ReverseKL
from tutelage.models.causal_lm import CausalLM, rotated, rotations
from tutelage.models.tapped import Tapped

CONF = Path(__file__).parents[3] / "conf" / "model"
TOKENS = torch.randint(20, (3, 8), generator=torch.Generator().manual_seed(0))


def make(**more):
    torch.manual_seed(0)
    return CausalLM([8], 20, **{"width": 16, "depth": 2, "heads": 2, **more}).eval()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_position_sees_itself_and_those_before(positions):
    net = make(positions=positions)
    logits = net(TOKENS)
    assert logits.shape == (3, 8, 20)
    changed = TOKENS.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 20
    other = net(changed)
    torch.testing.assert_close(other[:, :5], logits[:, :5], rtol=1e-5, atol=1e-6)
    assert not torch.isclose(other[:, 5:], logits[:, 5:]).all(-1).any()
    torch.testing.assert_close(net(TOKENS[:, :4]), logits[:, :4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_the_same_tokens_in_another_order_are_another_text(positions):
    net = make(positions=positions)
    swapped = TOKENS[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    same = TOKENS[:, 0] != TOKENS[:, 1]
    assert not torch.isclose(net(swapped)[same, -1], net(TOKENS)[same, -1], rtol=1e-6, atol=1e-7).all()


def test_products_of_rotated_vectors_depend_on_their_distance_alone():
    turns = rotations(9, 6)
    query, key = torch.randn(2, 1, 1, 1, 6, generator=torch.Generator().manual_seed(1))
    turned = rotated(query.expand(1, 1, 9, 6), turns) @ rotated(key.expand(1, 1, 9, 6), turns).mT
    for distance in range(-8, 9):
        found = turned[0, 0].diagonal(distance)
        torch.testing.assert_close(found, found[:1].expand_as(found))
    angle = 3 * 10000 ** (-2 / 6)  # of the second pair at position 3
    x = torch.zeros(1, 1, 9, 6)
    x[..., 1] = 1.0
    assert rotated(x, turns)[0, 0, 3, [1, 4]].tolist() == pytest.approx([math.cos(angle), math.sin(angle)])


def test_one_block_is_what_the_formula_says():
    net = make(depth=1, heads=2, positions="learned").double()
    with torch.no_grad():
        net.blocks[0].attention.out.weight.mul_(20)
    x = net.embedding.weight[TOKENS] + net.places.weight[:8]

    def norm(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float64).eps).sqrt()

    part, h = net.blocks[0].attention, norm(x)
    heads = [(h @ one.weight.T).view(3, 8, 2, 8).transpose(1, 2) for one in (part.query, part.key, part.value)]
    scores = heads[0] @ heads[1].mT / math.sqrt(8)
    scores = scores.masked_fill(torch.ones(8, 8).triu(1).bool(), -math.inf)
    x = x + (scores.softmax(-1) @ heads[2]).transpose(1, 2).reshape(3, 8, 16) @ part.out.weight.T
    first, _, last = net.blocks[0].mlp
    x = x + nn.functional.gelu(norm(x) @ first.weight.T) @ last.weight.T
    torch.testing.assert_close(net(TOKENS), norm(x) @ net.embedding.weight.T, rtol=1e-9, atol=1e-11)


def test_a_tied_classifier_is_the_embedding():
    tied, free = make(), make(tied=False)
    assert tied.head.weight is tied.embedding.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 20 * 16


def test_dropout_acts_in_training_alone():
    net = make(dropout=0.3)
    assert torch.equal(net(TOKENS), net(TOKENS))
    net.train()
    assert not torch.equal(net(TOKENS), net(TOKENS))


def test_its_cost_is_counted():
    # each block: 4·d² of attention, 2·L·d of scores and values, 8·d² of the perceptron; the classifier
    expected = 8 * (2 * (12 * 16 * 16 + 2 * 8 * 16) + 16 * 20)
    assert multiply_adds(make(), {"input": TOKENS, "mask": TOKENS > 3}) == expected


@pytest.mark.parametrize("name", ["causal_lm", "causal_lm_small"])
def test_the_yamls_have_the_parameters_that_they_name_and_taps(compose, name):
    cfg = compose(f"model@student={name}", "data.input_shape=[16]", "data.num_outputs=4096").student
    tapped = instantiate(cfg)
    assert isinstance(tapped, Tapped)
    said = float(re.search(r"\((\d\.\d) million", (CONF / f"{name}.yaml").read_text())[1])
    assert sum(p.numel() for p in tapped.net.parameters()) / 1e6 == pytest.approx(said, abs=0.05)
    width = tapped.net.head.in_features
    tapped.register_taps({"layer1", "query0", "hidden", "head.weight", "logits"})
    found = tapped(TOKENS)
    assert found["layer1"].shape == found["query0"].shape == found["hidden"].shape == (3, 8, width)
    torch.testing.assert_close(found["hidden"] @ found["head.weight"].T, found["logits"])


def test_the_fused_loss_on_states_is_the_loss_on_logits():
    student, teacher = (Tapped(make(width=width), {"hidden": "norm", "head": "head"}) for width in (8, 16))
    for one in (student, teacher):
        one.register_taps({"hidden", "head.weight"})
    ours, theirs = student(TOKENS), teacher(TOKENS)
    rows = {"student": ours["hidden"].flatten(0, 1), "teacher": theirs["hidden"].flatten(0, 1)}
    weights = {"student_weight": ours["head.weight"], "teacher_weight": theirs["head.weight"]}
    fused = FusedLinear(ReverseKL(), chunk=5)(**rows, **weights)
    plain = ReverseKL()(ours["logits"].flatten(0, 1), theirs["logits"].flatten(0, 1))
    torch.testing.assert_close(fused, plain)
    found, expected = (
        torch.autograd.grad(x, list(student.net.parameters()), retain_graph=True) for x in (fused, plain)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


BAD = {
    "width": ({"width": 15}, "width=15 of heads=2 must be a multiple"),
    "odd": ({"width": 6}, "width / heads even with rotary positions"),
    "positions": ({"positions": "sinus"}, "CausalLM.positions must be rotary or learned; found 'sinus'"),
    "depth": ({"depth": 0}, "CausalLM: depth must be positive; found 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_one_sentence(name):
    given, said = BAD[name]
    with pytest.raises(TutelageError, match=said):
        make(**given)


def test_too_long_sequences_and_images_are_refused():
    with pytest.raises(TutelageError, match="CausalLM has a context of 8 tokens; found sequences of 9"):
        make()(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(
        TutelageError, match=r"CausalLM takes sequences of tokens, input_shape \[L\]; found \[1, 8, 8\]"
    ):
        CausalLM([1, 8, 8], 10)
