"""A teacher's signals from disk."""

import pytest
import torch
from simulated_gpu import simulated_gpus
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.cached import Cached, topk_compress
from tutelage.sources.frozen import Frozen
from tutelage.sources.store import Column, Writer

KEY = torch.tensor([3, 5, 8, 9])


def stored(folder, by_view: list[dict[str, torch.Tensor]], dtype="float32", constant=None, key=KEY):
    folder.mkdir(exist_ok=True)
    columns = [
        Column(name, tuple(x.shape[1:]), dtype if x.is_floating_point() else "int32") for name, x in by_view[0].items()
    ]
    writer = Writer(folder, columns, key, len(by_view))
    for view, signals in enumerate(by_view):
        writer.write(view, 0, signals)
    writer.finish(constant or {})
    return str(folder)


def test_each_example_gets_its_row_of_its_view(tmp_path):
    views = [{"logits": torch.randn(4, 3), "stage1": torch.randn(4, 2, 5, 5)} for _ in range(3)]
    source = Cached(None, stored(tmp_path, views, constant={"classifier.weight": torch.eye(3)}))
    source.attach({"logits", "stage1", "classifier.weight"}, {})
    found = source({"key": torch.tensor([9, 3]), "view": torch.tensor([2, 1])})
    assert torch.equal(found["logits"], torch.stack([views[2]["logits"][3], views[1]["logits"][0]]))
    assert torch.equal(found["stage1"], torch.stack([views[2]["stage1"][3], views[1]["stage1"][0]]))
    assert torch.equal(found["classifier.weight"], torch.eye(3))
    assert torch.equal(source({"key": KEY})["logits"], views[0]["logits"])  # images as they are
    assert not source.state_dict()
    assert not list(source.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_float32(tmp_path, dtype):
    logits = torch.randn(4, 3)
    found = Cached(None, stored(tmp_path, [{"logits": logits}], dtype))({"key": KEY})["logits"]
    assert found.dtype == torch.float32
    assert torch.equal(found, logits.to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("top", [1, 3, 6, 7, 50])
def test_the_top_and_the_rest_are_a_distribution_with_the_right_mass(tmp_path, caplog, top):
    logits = torch.randn(4, 7, dtype=torch.float64) * 3
    source = Cached(None, stored(tmp_path, [topk_compress(logits, top)]))
    assert "approximate at temperatures other than 1" in caplog.text
    source.attach({"logits"}, {})
    p, found = logits.softmax(1), source({"key": KEY})["logits"].double().softmax(1)
    kept = p.topk(min(top, 7), dim=1).indices
    torch.testing.assert_close(found.gather(1, kept), p.gather(1, kept), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(4).double())
    others = torch.ones(4, 7).bool().scatter(1, kept, False)
    for row in range(4):  # what is left is shared evenly
        torch.testing.assert_close(
            found[row, others[row]], p[row, others[row]].mean().expand(int(others[row].sum())), rtol=1e-4, atol=1e-7
        ) if others[row].any() else None


def test_the_top_of_one_example(tmp_path):
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    source = Cached(None, stored(tmp_path, [topk_compress(logits, 2)], key=KEY[:1]))
    torch.testing.assert_close(source({"key": KEY[:1]})["logits"], logits.log_softmax(1))


def test_the_greatest_of_the_rest_may_be_far_above_the_others():
    logits = torch.zeros(1, 9)
    logits[0, :2] = 300  # one is in the top
    found = topk_compress(logits, 1)
    torch.testing.assert_close(found["logits_rest"], torch.tensor([[0.5]]).double().log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gap", [0.0, 3.0, 200.0])
def test_the_mass_of_the_rest_is_known_however_small_it_is(dtype, gap):
    logits = (torch.randn(4, 3, 500) + gap * (torch.arange(500) < 8)).to(dtype)
    logits[0] *= 50
    found, p = topk_compress(logits, 8), logits.double().log_softmax(-1)
    assert torch.equal(p.gather(-1, found["logits_class"].long()), p.topk(8).values)
    torch.testing.assert_close(found["logits_top"], p.topk(8).values, rtol=1e-9, atol=1e-7)
    others = p.scatter(-1, found["logits_class"].long(), float("-inf")).logsumexp(-1, keepdim=True)
    torch.testing.assert_close(found["logits_rest"], others, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize(("dtype", "classes"), [("bfloat16", 257), ("bfloat16", 1001), ("float16", 21841)])
def test_the_number_of_classes_is_exact_in_every_dtype(tmp_path, dtype, classes):
    logits = torch.zeros(4, classes)
    logits[:, -1] = 5
    found = Cached(None, stored(tmp_path, [topk_compress(logits, 2)], dtype))({"key": KEY})["logits"]
    assert found.shape == (4, classes)
    assert found.argmax(1).tolist() == 4 * [classes - 1]


def test_top_classes_without_their_number_are_refused(tmp_path):
    """Once it was a value of the signals' dtype beside the rest."""
    old = {"logits_top": torch.zeros(4, 2), "logits_class": torch.zeros(4, 2).int(), "logits_rest": torch.ones(4, 2)}
    with pytest.raises(TutelageError, match=r"top classes in an older format; delete it to compute it again"):
        Cached(None, stored(tmp_path, [old]))


def test_what_is_not_there_is_refused(tmp_path):
    source = Cached(None, stored(tmp_path, [{"logits": torch.randn(4, 3)}]))
    with pytest.raises(TutelageError, match=r"lacks \['stage1'\]; it has \['logits'\]"):
        source.attach({"logits", "stage1"}, {})
    source.expect({"train": KEY, "val": torch.tensor([1])})  # validation is not its business
    source.expect({"train": KEY[1:2]})
    gaps = Cached(None, stored(tmp_path / "gaps", [{"logits": torch.randn(4, 3)}], key=torch.tensor([0, 1, 2, 9])))
    gaps.expect({"train": torch.tensor([9])})  # the largest key, before which there is none
    for key in (4, 10, 100):  # 9 is the last
        with pytest.raises(TutelageError, match=f"lacks training example {key}: it was written for others"):
            source.expect({"train": torch.tensor([3, key])})
    with pytest.raises(TutelageError, match="needs a source to write from, or a folder"):
        Cached(None)
    with pytest.raises(TutelageError, match="dtype must be float32, float16 or bfloat16; found 'float64'"):
        Cached(None, str(tmp_path), dtype="float64")
    with pytest.raises(TutelageError, match="top must be at least 1; found 0"):
        Cached(None, str(tmp_path), top=0)


def test_before_it_is_written_the_source_answers():
    teacher = Frozen(Tapped(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))))
    source = Cached(teacher, top=1, views=1).to("cpu")
    source.attach({"logits"}, {})
    batch = {"input": torch.randn(2, 1, 2, 2), "key": torch.tensor([0, 1])}
    assert torch.equal(source(batch)["logits"], teacher(batch)["logits"])
    assert source.supports_validation
    source.expect({"train": KEY})  # whatever it is
    source.verify()
    with torch.no_grad():
        teacher.net.net[1].weight.add_(1)
    with pytest.raises(TutelageError, match="frozen teacher has changed"):
        source.verify()


def test_signals_of_tokens_are_as_wide_as_the_batch_and_others_whole(tmp_path):
    signals = {"logits": torch.randn(4, 6, 5), "attention": torch.randn(4, 2, 6, 6), "pooled": torch.randn(4, 7)}
    axes = {"logits": (0,), "attention": (1, 2), "pooled": ()}
    columns = [Column(name, tuple(x.shape[1:]), "float32", axes[name]) for name, x in signals.items()]
    writer = Writer(tmp_path, columns, KEY, 1)
    writer.write(0, 0, signals)
    writer.finish({})
    source = Cached(None, str(tmp_path))
    found = source({"key": KEY[[2, 0]], "input": torch.zeros(2, 3, dtype=torch.long)})
    assert torch.equal(found["logits"], signals["logits"][[2, 0], :3])
    assert torch.equal(found["attention"], signals["attention"][[2, 0], :, :3, :3])
    assert torch.equal(found["pooled"], signals["pooled"][[2, 0]])
    source.verify()  # of no teacher


def test_the_top_of_tokens_is_that_of_every_position(tmp_path):
    logits = 3 * torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    found = Cached(None, stored(tmp_path / "some", [topk_compress(logits, 3)]))({"key": KEY})["logits"]
    rows = Cached(None, stored(tmp_path / "rows", [topk_compress(logits[:, 2], 3)]))({"key": KEY})["logits"]
    assert found.shape == logits.shape
    assert torch.equal(found[:, 2], rows)
    p, kept = logits.softmax(-1), logits.topk(3).indices
    torch.testing.assert_close(found.softmax(-1).gather(-1, kept), p.gather(-1, kept))
    whole = Cached(None, stored(tmp_path / "whole", [topk_compress(logits, 7)]))({"key": KEY})["logits"]
    torch.testing.assert_close(whole, logits.log_softmax(-1))


def test_what_lies_on_the_device_was_checked_whole(tmp_path, monkeypatch):
    """Else each step would wait for the rows that it looks for."""
    monkeypatch.setattr("tutelage.sources.store.AT_ONCE", 0)
    monkeypatch.setattr("tutelage.sources.cached.free_memory", lambda device: 1 << 30)
    folder = stored(tmp_path, [{"logits": torch.randn(4, 3)}])
    with simulated_gpus():
        source = Cached(None, folder)
        assert source.checksums is not None
        source.to("cuda")
        assert not source.asks_host
        assert source.checksums is None
    with open(tmp_path / "logits.bin", "r+b") as file:
        file.write(b"x")
    with simulated_gpus(), pytest.raises(TutelageError, match=r"logits\.bin: damaged"):
        Cached(None, folder).to("cuda")


def test_signals_that_fit_lie_on_the_device_and_others_stay_on_the_host(tmp_path, monkeypatch, caplog):
    """A quarter of the free memory is theirs."""
    logits = torch.randn(4, 3 << 16)
    folder = stored(tmp_path, [{"logits": logits}])
    for free, lies_there in ((4 * logits.nbytes, True), (4 * logits.nbytes - 1, False)):
        monkeypatch.setattr("tutelage.sources.cached.free_memory", lambda device, free=free: free)
        caplog.clear()
        with simulated_gpus():
            source = Cached(None, folder).to("cuda")
            assert (source.asks_host, "3 MB do not fit on cuda" in caplog.text) == (not lies_there, not lies_there)
            found = source({"key": KEY[[2, 0]].to("cuda")})["logits"]
            assert found.device.type == "cuda"
            assert torch.equal(found.cpu(), logits[[2, 0]])
            source.to("cpu")
            assert source.asks_host
        assert torch.equal(source({"key": KEY})["logits"], logits)


def test_rows_are_fetched_from_the_host_where_they_are_not_on_the_device(tmp_path):
    source = Cached(None, stored(tmp_path, [{"logits": torch.randn(4, 3)}]))
    assert source.asks_host
    source.on_device = dict(source.on_host)
    assert not source.asks_host
    assert not Cached(Frozen(Tapped(nn.Linear(2, 3)))).asks_host
