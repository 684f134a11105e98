import copy
import importlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from black_boxes import Linear, asked
from torch import nn

from tutelage.errors import TutelageError
from tutelage.sources import black_box
from tutelage.sources.black_box import BlackBoxTeacher


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary"


@pytest.fixture
def source(tmp_path, diary, monkeypatch):
    """``source(**more)`` asks a linear model of 3 classes, or ``ask``, whose answers are in ``tmp_path / "asked"``.

    One model behind several callables: their code is not compared.
    """
    monkeypatch.setattr(black_box, "_code_of", lambda ask: {})

    def make(ask=None, **more):
        given = {"kind": "logits", "num_classes": 3, "folder": str(tmp_path / "asked"), "name": "box 1", "wait": 0.0}
        return BlackBoxTeacher(ask or Linear(str(diary), 3), **given | more)

    return make


def batch(*keys, shape=(1, 2, 2)):
    images = [torch.randn(shape, generator=torch.Generator().manual_seed(key)) for key in keys]
    return {"input": torch.stack(images), "key": torch.tensor(keys)}


def test_it_gives_what_the_model_answers_and_asks_nothing_twice(tmp_path, source, diary):
    one = source()
    expected = torch.from_numpy(Linear(str(tmp_path / "other"), 3)(batch(1, 2, 3).pop("input").numpy()))
    assert torch.equal(one(batch(1, 2, 3))["logits"], expected)
    assert torch.equal(one(batch(3, 2, 3, 1))["logits"], expected[[2, 1, 2, 0]])
    assert torch.equal(source()(batch(2))["logits"], expected[[1]])  # another job
    assert len(asked(diary)) == 3


def test_an_image_that_is_twice_in_a_batch_is_asked_once(source, diary):
    logits = source()(batch(4, 4, 5))["logits"]
    assert torch.equal(logits[0], logits[1])
    assert len(asked(diary)) == 2


def test_the_content_counts_and_not_the_key(source, diary):
    """So it is right under augmentation: the example's other picture is another question."""
    one, first = source(), batch(1)
    turned = {**first, "input": first["input"].flip(-1)}
    assert not torch.equal(one(first)["logits"], one(turned)["logits"])
    assert torch.equal(one({**first, "key": torch.tensor([99])})["logits"], one(first)["logits"])
    assert len(asked(diary)) == 2
    one(batch(1, shape=(1, 1, 4)))  # the same bytes in another shape
    assert len(asked(diary)) == 3


def test_another_name_or_version_is_asked_anew(source, diary):
    source()(batch(1))
    source(name="box 2")(batch(1))
    versioned = Linear(str(diary), 3)
    versioned.version = "abc"
    for name in ("box 1", None):
        source(versioned, name=name)(batch(1))
    assert len(asked(diary)) == 4


def test_the_file_is_named_after_the_model_with_at_most_100_characters(source):
    assert source(name="a/b c:" + 200 * "x").answers.path.name == "a_b_c_" + 94 * "x" + ".sqlite"


def test_questions_have_at_most_so_many_images(source):
    sizes = []

    def ask(images):
        sizes.append(len(images))
        return np.zeros((len(images), 3))

    source(ask, batch_size=4)(batch(*range(10)))
    assert sizes == [4, 4, 2]


def test_the_model_sees_float32_whatever_the_precision_and_layout(source):
    def ask(images):
        assert images.dtype == np.float32
        assert images.shape == (2, 3, 4, 5)
        return images.reshape(2, -1)[:, :3]

    given = {**batch(1, 2, shape=(3, 4, 5))}
    given["input"] = given["input"].bfloat16().to(memory_format=torch.channels_last)
    assert torch.equal(source(ask)(given)["logits"], given["input"].float()[:, 0, 0, :3])


def test_probabilities_become_their_logarithms(source):
    one = source(lambda images: np.tile([0.25, 0.75, 0.0], (len(images), 1)), kind="probabilities")
    found = one(batch(1))["logits"]
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.25, 0.75, 0.0]]), rtol=1e-6, atol=1e-37)


def test_failures_are_asked_again(source, diary, caplog):
    assert source(Linear(str(diary), 3, fail=2), retries=2)(batch(1))["logits"].shape == (1, 3)
    assert caplog.text.count("line 7 is down") == 2
    assert len(asked(diary)) == 1


def test_each_wait_is_twice_the_last(source, diary, monkeypatch):
    waits = []
    monkeypatch.setattr(black_box, "time", SimpleNamespace(sleep=waits.append))  # other threads sleep, too
    source(Linear(str(diary), 3, fail=3), wait=0.5)(batch(1))
    assert waits == [0.5, 1.0, 2.0]


def test_the_last_failure_is_told_with_its_cause(source, diary):
    with pytest.raises(TutelageError, match=r"failed on 2 images in 3 attempts; .*line 7 is down, from TimeoutErr"):
        source(Linear(str(diary), 3, fail=9), retries=2)(batch(1, 2))


def test_what_happened_before_a_failure_is_told_unless_the_box_hides_it(source):
    def ask(images, how):
        try:
            {}["token"]
        except KeyError:
            if how == "hidden":
                raise OSError("not signed in") from None
            raise OSError("not signed in")  # noqa: B904

    for how, said in (("told", r"OSError: not signed in, from KeyError: 'token'$"), ("hidden", "not signed in$")):
        with pytest.raises(TutelageError, match=said):
            source(partial(ask, how=how), retries=0)(batch(1))


def test_the_least_batch_and_no_retry(source, diary):
    assert source(batch_size=1)(batch(1, 2))["logits"].shape == (2, 3)
    with pytest.raises(TutelageError, match="in 1 attempts"):
        source(Linear(str(diary), 3, fail=1), retries=0)(batch(3))


def test_a_mistake_is_not_asked_again(source):
    times = []

    def ask(images):
        times.append(1)
        raise TutelageError("images of 3 channels only")

    with pytest.raises(TutelageError, match=r"^images of 3 channels only"):
        source(ask)(batch(1))
    assert len(times) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([[1.0, 2.0]] * 2, r"box 1: expected logits \[2, 3\] \(examples, classes\), found \[2, 2\]"),
        ([[1.0, 2.0, 3.0]], r"expected logits \[2, 3\] .* found \[1, 3\]"),
        ([[1, 2, 3], [4, np.nan, 6]], "expected finite logits, found nan for class 1 of example 8"),
        ("sorry", "expected logits that are numbers"),
    ],
)
def test_an_answer_that_is_none_is_refused_and_not_kept(source, diary, answer, said):
    with pytest.raises(TutelageError, match=said):
        source(lambda images: answer)(batch(7, 8))
    assert source()(batch(7, 8))["logits"].isfinite().all()
    assert len(asked(diary)) == 2


def test_jobs_that_ask_the_same_at_once_ask_it_once(source, diary):
    box, together = Linear(str(diary), 3), threading.Barrier(4)

    def job():
        one = source(box, batch_size=3)  # a connection and a lock of its own, as in a process of its own
        together.wait()
        return one(batch(*range(12)))["logits"]

    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(job) for _ in range(4)]]
    assert all(torch.equal(found[0], other) for other in found)
    assert len(asked(diary)) == 12


def test_what_was_answered_before_an_interruption_is_kept(source, diary):
    box = Linear(str(diary), 3)

    def ask(images):
        if len(asked(diary)) == 4:
            raise KeyboardInterrupt
        return box(images)

    with pytest.raises(KeyboardInterrupt):
        source(ask, batch_size=2)(batch(*range(6)))
    source()(batch(*range(6)))
    assert len(asked(diary)) == len(set(asked(diary))) == 6


def test_it_has_logits_only_and_no_gradient(source):
    one = source()
    one.attach({"logits"}, {"student": one})
    with pytest.raises(TutelageError, match=r"black box has logits only; the objective also reads \['embedding'\]"):
        one.attach({"logits", "embedding"}, {"student": one})
    given = batch(1)
    given["input"].requires_grad_()
    with pytest.raises(TutelageError, match="no gradient"):
        one(given)


def test_a_model_in_it_is_no_child_and_copies_share_it(source):
    class Net(nn.Linear):
        def forward(self, images):
            return super().forward(torch.from_numpy(images).flatten(1)).detach().numpy()

    one = source(Net(4, 3))
    one(batch(1))
    assert not list(one.parameters())
    assert not one.state_dict()
    assert copy.deepcopy(nn.ModuleList([one]))[0] is one


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ask": 3}, r"ask must be callable; found int \(a function by _target_ needs _partial_: true\)"),
        ({"name": None}, "name is needed"),
        ({"kind": "logit"}, "kind must be 'logits' or 'probabilities'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"retries": -1}, "retries and wait at least 0"),
        ({"wait": -1.0}, "retries and wait at least 0"),
    ],
)
def test_arguments_that_mean_nothing(source, more, said):
    with pytest.raises(TutelageError, match=said):
        source(**more)


def test_of_the_code_of_a_box_only_what_has_changed_is_named(tmp_path, source, monkeypatch):
    source()(batch(1))
    file = tmp_path / "asked" / "box_1.code.json"
    assert not file.exists()  # no code of one's own
    monkeypatch.setattr(black_box, "_code_of", lambda ask: {"box": "1", "helpers": "2"})
    for before, named in (({"box": "1", "helpers": "3"}, "helpers"), ({"box": "1"}, "helpers"), ([], "box, helpers")):
        file.write_text(json.dumps(before))
        with pytest.raises(TutelageError, match=f"the code of {named} has changed"):
            source()


def test_answers_of_code_that_has_changed_are_refused_and_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "box_that_changes.py"
    code = "def ask(images):\n    return {} * images.reshape(len(images), -1)[:, :3]\n"
    file.write_text(code.format(1))
    module = importlib.import_module("box_that_changes")
    place = ("logits", 3, str(tmp_path / "asked"))
    first = BlackBoxTeacher(partial(module.ask), *place, "v1")(batch(1))["logits"]
    file.write_text(code.format(2) + "# another size, so that the module is read anew\n")
    module = importlib.reload(module)
    with pytest.raises(TutelageError, match=r"code of box_that_changes has changed .* 'v1' .*delete .*v1\.code\.json"):
        BlackBoxTeacher(partial(module.ask), *place, "v1")
    (tmp_path / "asked" / "v1.code.json").unlink()
    assert torch.equal(BlackBoxTeacher(partial(module.ask), *place, "v1")(batch(1))["logits"], first)
    anew = BlackBoxTeacher(partial(module.ask), *place, "v2")(batch(1))["logits"]
    torch.testing.assert_close(anew, 2 * first)
