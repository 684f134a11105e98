"""Networks on graphs against dense matrices in float64, and what holds for all of them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from made_graph import write
from torch import nn

from tutelage.config.paths import conf_dir
from tutelage.data.graph.nodes import GraphData
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.models.graph_nets.appnp import APPNP
from tutelage.models.graph_nets.gat import GAT
from tutelage.models.graph_nets.gcn import GCN
from tutelage.models.graph_nets.graph_sage import GraphSAGE
from tutelage.models.graph_nets.layers import softmax_by_node
from tutelage.models.mlp import MLP
from tutelage.models.tapped import Tapped

READS = {"node": "node", **{name: f"graph.{name}" for name in ("edges", "columns", "offsets", "values")}}
WIDTHS = [6, 5]
NETS = {
    "gcn": lambda widths=WIDTHS: GCN([30], widths, 3),
    "sage gcn": lambda widths=WIDTHS: GraphSAGE([30], widths, 3, dropout=0.5),
    "sage mean": lambda widths=WIDTHS: GraphSAGE([30], widths, 3, "mean", dropout=0.5),
    "gat": lambda widths=WIDTHS: GAT([30], widths, 3, heads=4, last_heads=2),
    "appnp": lambda widths=WIDTHS: APPNP([30], widths, 3, steps=3, teleport=0.2),
}
every = pytest.mark.parametrize("name", NETS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("graph") / "made.npz")
    made = GraphData(
        path=path, batch_size=16, seed=0, train_per_class=4, val_per_class=6, drop_last=False, largest_component=False
    )
    made.setup()
    return made


def network(name):
    torch.manual_seed(0)
    net = NETS[name]()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return Tapped(net.double().eval(), {"embedding": "hidden.-1", "first": "hidden.0"}, reads=READS)


def batch_of(data, nodes=None):
    graph = data.graph
    batch = {"node": torch.arange(len(graph)) if nodes is None else nodes, **graph.fields()}
    return batch | {"graph.values": graph.values.double()}


def dense(data):
    graph = data.graph
    own = torch.zeros(len(graph), len(graph), dtype=torch.float64)
    own[graph.edges[1], graph.edges[0]] = 1
    return graph.features.double(), own


def gcn_oracle(net, x, a):
    loops = a + torch.eye(len(a))
    root = torch.diag(loops.sum(1) ** -0.5)
    smooth = root @ loops @ root
    h, states = smooth @ x @ net.first.weight + net.biases[0], []
    for layer, bias in zip(net.later, net.biases[1:], strict=True):
        states.append(h.relu())
        h = smooth @ states[-1] @ layer.weight.T + bias
    return h, states


def sage_oracle(net, x, a):
    loops = a if net.own else a + torch.eye(len(a))
    mean = loops / loops.sum(1, keepdim=True)
    weights = [(net.first.weight, net.first.bias), *((layer.weight.T, layer.bias) for layer in net.later)]
    h, states = x, []
    for number, (weight, bias) in enumerate(weights):
        if net.own:
            (w1, w2), (b1, b2) = weight.chunk(2, 1), bias.chunk(2)
            h = h @ w1 + b1 + (mean @ h) @ w2 + b2
        else:
            h = (mean @ h) @ weight + bias
        if number < len(weights) - 1:
            states.append(h := h.relu())
    return h, states


def gat_oracle(net, x, a):
    linked = (a + torch.eye(len(a))) > 0
    weights = [net.first.weight, *(layer.weight.T for layer in net.later)]
    h, states = x, []
    for number, weight in enumerate(weights):
        z = (h @ weight).view(len(x), net.heads[number], -1)
        outputs = []
        for head in range(net.heads[number]):
            left, right = (z[:, head] @ v[number][0, head] for v in (net.sent, net.received))
            score = F.leaky_relu(left[None] + right[:, None], 0.2).masked_fill(~linked, -torch.inf)  # [i, j]
            outputs.append(score.softmax(1) @ z[:, head])
        if number == len(weights) - 1:
            return torch.stack(outputs).mean(0) + net.biases[number], states
        states.append(h := F.elu(torch.cat(outputs, 1) + net.biases[number]))


def appnp_oracle(net, x, a):
    loops = a + torch.eye(len(a))
    root = torch.diag(loops.sum(1) ** -0.5)
    h, states = x @ net.first.weight + net.first.bias, []
    for layer in net.later:
        states.append(h.relu())
        h = layer(states[-1])
    smooth, share = root @ loops @ root, net.teleport
    powers = [torch.linalg.matrix_power((1 - share) * smooth, k) for k in range(net.steps + 1)]
    return (sum(share * power for power in powers[:-1]) + powers[-1]) @ h, states


ORACLES = {
    "gcn": gcn_oracle,
    "sage gcn": sage_oracle,
    "sage mean": sage_oracle,
    "gat": gat_oracle,
    "appnp": appnp_oracle,
}


@every
def test_it_is_its_formula_on_dense_matrices(data, name):
    tapped = network(name)
    tapped.register_taps(["embedding", "first"])
    x, a = dense(data)
    logits, states = ORACLES[name](tapped.net, x, a)
    found = tapped(batch_of(data))
    assert torch.allclose(found["logits"], logits, atol=1e-10)
    assert torch.allclose(found["first"], states[0], atol=1e-10)
    assert torch.allclose(found["embedding"], states[-1], atol=1e-10)


@every
def test_signals_are_of_the_nodes_of_the_batch(data, name):
    tapped = network(name)
    tapped.register_taps(["embedding"])
    nodes = torch.tensor([7, 0, 119, 7])
    whole, part = tapped(batch_of(data)), tapped(batch_of(data, nodes))
    assert all(torch.equal(part[signal], whole[signal][nodes]) for signal in ("logits", "embedding"))


@every
def test_the_order_of_edges_does_not_matter_and_every_weight_learns(data, name):
    tapped = network(name)
    batch = batch_of(data)
    shuffled = batch["graph.edges"][:, torch.randperm(batch["graph.edges"].shape[1])]
    assert torch.allclose(tapped(batch)["logits"], tapped(batch | {"graph.edges": shuffled})["logits"], atol=1e-12)
    tapped(batch)["logits"].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tapped.parameters())


@every
def test_dropout_is_in_training_alone(data, name):
    tapped, batch = network(name), batch_of(data)
    assert torch.equal(tapped(batch)["logits"], tapped(batch)["logits"])
    tapped.train()
    assert not torch.equal(tapped(batch)["logits"], tapped(batch)["logits"])


@every
def test_half_precision_and_autocast_are_close_to_float64(data, name):
    """Degrees and sums over neighbours stay in float32."""
    expected = network(name)(batch_of(data))["logits"].detach()
    single = network(name).float()
    batch = batch_of(data) | {"graph.values": data.graph.values}
    with torch.autocast("cpu", torch.bfloat16):
        mixed = single(batch)["logits"]
    half = single.to(torch.bfloat16)(batch)["logits"]
    for found in (mixed, half):
        assert (found.double() - expected).abs().max() < 0.05 * expected.abs().max()


@every
def test_its_cost_is_that_of_the_whole_graph_counted_on_shapes(data, name):
    net, batch = NETS[name](), data.sample(1)
    wrapped = Tapped(net, reads=READS)
    found = multiply_adds(wrapped.net, batch)
    nonzero, nodes = len(data.graph.columns), len(data.graph)
    first, *later = (parameter for parameter in net.parameters() if parameter.ndim == 2)
    assert found == nonzero * first.shape[1] + nodes * sum(weight.numel() for weight in later)
    assert multiply_adds(MLP([30], [6], 3), batch) == 30 * 6 + 6 * 3  # which reads one node


def test_softmax_by_node_stays_finite():
    scores = torch.tensor([1e4, 1e4, -1e4, 3.0], requires_grad=True)
    found = softmax_by_node(scores, torch.tensor([1, 1, 1, 0]), 3)
    assert found.tolist() == [0.5, 0.5, 0.0, 1.0]
    found.sum().backward()
    assert bool(scores.grad.isfinite().all())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GCN([30], [], 3), "GCN: widths must name at least one hidden layer"),
        (lambda: GAT([30], [], 3), "GAT: widths must name at least one"),
        (lambda: GAT([30], [4], 3, heads=0), "GAT: heads must be positive"),
        (lambda: GraphSAGE([30], [4], 3, "max"), "GraphSAGE: aggregator must be gcn or mean; found 'max'"),
        (lambda: APPNP([30], [4], 3, teleport=0.0), "APPNP: teleport must be above 0"),
        (lambda: APPNP([30], [4], 3, steps=0), "APPNP: steps must be positive"),
        (lambda: Tapped(GCN([30], [4], 3), reads=READS)({"input": torch.zeros(2, 30)}), "GCN reads the field 'node'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(TutelageError, match=said):
        make()


@pytest.mark.parametrize("name", ["gcn", "graph_sage", "gat", "appnp"])
def test_the_yaml_says_how_many_parameters_it_has_on_cora(compose, name):
    cfg = compose("data=cora", f"model@teacher={name}").teacher
    comment = (Path(conf_dir()) / "model" / f"{name}.yaml").read_text()
    count = sum(parameter.numel() for parameter in instantiate(cfg).parameters())
    assert f"{count:,} parameters on Cora" in comment
