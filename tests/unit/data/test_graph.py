"""data=graph: files, the split, what a batch holds, and nodes held out of the graph."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from made_graph import ALONE, NODES, arrays, write
from scipy.sparse import csr_array

from tutelage.data.graph.files import read_graph
from tutelage.data.graph.graph import undirected
from tutelage.data.graph.nodes import GraphData
from tutelage.data.order import EpochLoader, EpochOrder
from tutelage.data.resident import Residence
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL


def dense(name):
    given = arrays()
    parts = tuple(given[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return torch.from_numpy(csr_array(parts, shape=given[f"{name}_shape"]).toarray())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("graph") / "made.npz")


@pytest.fixture
def make(path):
    def build(**arguments):
        common = {"path": path, "batch_size": 16, "seed": 0, "train_per_class": 4, "val_per_class": 6}
        data = GraphData(**common | {"drop_last": False} | arguments)
        data.setup()
        return data

    return build


def test_a_file_is_read_as_its_matrices(path):
    graph, labels, names = read_graph(path)
    assert torch.equal(graph.features, dense("attr"))
    both = (dense("adj") + dense("adj").T).clamp(max=1).fill_diagonal_(0)
    found = torch.zeros(NODES, NODES)
    found[graph.edges[1], graph.edges[0]] = 1
    assert torch.equal(found, both)
    assert graph.edges.shape[1] == int(both.sum())  # each once
    assert labels.tolist() == arrays()["labels"].tolist()
    assert names == ["a", "b", "c"]


def test_only_the_largest_part_is_used_unless_all_is_asked_for(make):
    data = make()
    assert len(data.graph) == NODES - ALONE
    assert torch.equal(data.graph.features, dense("attr")[: NODES - ALONE])
    assert len(make(largest_component=False).graph) == NODES


def test_the_split_has_so_many_of_each_class_and_follows_its_seed(make):
    data, other = make(), make(split_seed=1)
    for part, count in (("train", 4), ("val", 6)):
        assert data.splits[part].labels.bincount().tolist() == [count] * 3
    nodes = torch.cat(list(data.parts.values())).sort().values
    assert torch.equal(nodes, torch.arange(NODES - ALONE))  # every node once
    assert not torch.equal(data.parts["train"], other.parts["train"])
    assert torch.equal(data.parts["train"], make(seed=5).parts["train"])
    assert data.fingerprint() != other.fingerprint()


def test_a_batch_has_its_nodes_features_and_the_whole_graph(make):
    data = make()
    for part in ("train", "val", "test"):
        batch = next(iter(data.whole(part)))
        node = data.parts[part]
        assert torch.equal(batch["node"], node)
        assert torch.equal(batch["input"], dense("attr")[node])
        assert torch.equal(batch["label"], torch.from_numpy(arrays()["labels"]).long()[node])
        assert torch.equal(batch["graph.edges"], data.graph.edges)


def test_other_nodes_are_trained_on_without_their_labels(make):
    data = make(unlabelled=["val", "test"])
    train = data.splits["train"]
    assert len(train) == NODES - ALONE
    assert int((train.labels != NO_LABEL).sum()) == 12
    assert train.nodes.place[train.keys].unique().numel() == NODES - ALONE
    assert len(make(unlabelled=["val"]).splits["train"]) == 12 + 18


def test_held_out_nodes_are_not_in_the_graph_of_training(make):
    """Neither their features nor their edges; what is left is the graph between the others."""
    data = make(inductive=0.25, unlabelled=["val", "test"])
    whole = make()
    held = whole.parts["test"][~torch.isin(whole.parts["test"], data.parts["test"])]
    assert len(held) == round(0.25 * len(whole.parts["test"]))
    rest = torch.cat([data.parts[part] for part in ("train", "val", "test")]).sort().values
    assert len(data.splits["train"]) == len(rest) == NODES - ALONE - len(held)
    seen = data.splits["train"].nodes.graph
    assert torch.equal(seen.features, whole.graph.features[rest])
    full = torch.zeros(len(whole.graph), len(whole.graph))
    full[whole.graph.edges[0], whole.graph.edges[1]] = 1
    own = torch.zeros(len(seen), len(seen))
    own[seen.edges[0], seen.edges[1]] = 1
    assert torch.equal(own, full[rest][:, rest])
    test = next(iter(data.whole("test")))
    assert torch.equal(test["node"], held)
    assert torch.equal(test["graph.edges"], whole.graph.edges)
    observed = next(iter(make(inductive=0.25, tested="observed").whole("test")))
    assert torch.equal(observed["graph.edges"], seen.edges)
    assert torch.equal(observed["input"], whole.graph.features[data.parts["test"]])


def test_on_a_device_batches_are_cut_from_larger_ones_and_keep_the_whole_graph(make):
    train = make(unlabelled=["test"]).splits["train"]
    moved = Residence(torch.device("cpu")).take(train)
    assert moved is not None
    order = {"size": len(train), "batch_size": 16, "seed": 0, "shuffle": True, "drop_last": False}
    plain = list(EpochLoader(train, EpochOrder(**order)))
    chunks = list(EpochLoader(train, EpochOrder(**order), residence=Residence(torch.device("cpu"))))
    assert len(plain) == len(chunks) > 3
    for one, other in zip(plain, chunks, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def shorter(name, to=-1):
    return {name: arrays()[name][:to]}


BROKEN = {
    "no labels": ({"labels": None}, "has no array 'labels'"),
    "no edges": ({"adj_indptr": None}, "has no array 'adj_indptr'"),
    "labels of floats": ({"labels": np.zeros(NODES)}, r"labels: expected one integer a node; found float64 \[120\]"),
    "fewer labels": (shorter("labels"), "adj_shape is 120 × 120; 119 labels need 119 × 119"),
    "no square": ({"adj_shape": np.array([120, 121])}, "adj_shape is 120 × 121"),
    "shape of floats": ({"attr_shape": np.array([120.0, 30.0])}, "attr_shape must be two integers; found float64"),
    "indptr short": (shorter("attr_indptr"), "attr_indptr must rise from 0 to .* in 121 numbers; found 120"),
    "indptr falls": ({"adj_indptr": arrays()["adj_indptr"][::-1]}, "adj_indptr must rise from 0"),
    "index outside": ({"attr_indices": arrays()["attr_indices"] + 1}, "attr_indices must be 0 to 29; found 1 to 30"),
    "index of floats": ({"adj_indices": arrays()["adj_indices"] / 2}, "adj_indices must be a row of integers"),
    "values short": (shorter("attr_data"), "attr_data must be a number for each of the"),
    "not finite": ({"attr_data": arrays()["attr_data"] * np.nan}, "number 0 of attr_data is nan"),
    "pickled": ({"labels": np.array([None] * NODES)}, r"\[120\] of pickled objects, which are never unpickled"),
    "label negative": ({"labels": arrays()["labels"] - 1}, "the example at index 0: its label is -1; expected 0 to 2"),
    "a class alone": ({"labels": np.where(np.arange(NODES) == 3, 3, arrays()["labels"])}, "class 3 has 1 nodes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_contradicts_itself_is_refused_by_name(make, tmp_path, case):
    changed, said = BROKEN[case]
    broken = write(tmp_path / "broken.npz", **changed)
    with pytest.raises(TutelageError, match=said):
        make(path=broken)


def test_a_missing_or_cut_file_is_refused(make, path, tmp_path):
    with pytest.raises(TutelageError, match=r"data\.path: there is no file"):
        make(path=tmp_path / "nowhere.npz")
    (cut := tmp_path / "cut.npz").write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(TutelageError, match=r"not a sound .npz file \(\d+ bytes\)"):
        make(path=cut)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train_per_class": 0}, "data.train_per_class must be a whole number of at least 1; found 0"),
        ({"val_per_class": 2.5}, "data.val_per_class must be a whole number"),
        ({"train_per_class": 36}, "class 0 has 38 nodes; 36 .train. and 6 .val. of each class"),
        ({"inductive": 1.0}, "data.inductive must be a fraction of the test nodes"),
        ({"tested": "observed"}, "data.tested=observed: needs data.inductive above 0"),
        ({"inductive": 0.2, "tested": "seen"}, "data.tested=seen, which must be held_out or observed"),
        ({"unlabelled": ["train"]}, "data.unlabelled must be some of val, test, once"),
        ({"input_shape": [31]}, r"data.input_shape=\[31\]: the nodes of .* have 30 features"),
        ({"views": 2}, "data.views must be null"),
    ],
)  # fmt: skip
def test_an_argument_out_of_range_is_refused(make, arguments, said):
    with pytest.raises(TutelageError, match=said):
        make(**arguments)


def test_edges_become_undirected():
    given = torch.tensor([[0, 1, 2, 2, 0], [1, 0, 2, 0, 1]])
    assert undirected(given, 3).T.tolist() == [[1, 0], [2, 0], [0, 1], [0, 2]]


@pytest.mark.parametrize(("name", "nodes", "edges"), [("cora", 2485, 5069), ("citeseer", 2110, 3668)])
def test_the_published_graphs_have_the_published_sizes(compose, monkeypatch, name, nodes, edges):
    root = os.environ.get("TUTELAGE_DATA")
    if not root or not (Path(root) / "graphs" / f"{name}.npz").is_file():
        pytest.skip(f"needs TUTELAGE_DATA=<folder with graphs/{name}.npz>")
    data = instantiate(compose(f"data={name}").data)
    data.setup()
    assert (len(data.graph), data.graph.edges.shape[1]) == (nodes, 2 * edges)
    assert len(data.splits["train"]) == nodes
    assert data.num_classes == len(data.class_names)
