"""Every task: figures against independent ones, the same on validation and afterwards, labels that are not known."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import ExplainedVariance

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import measure
from tutelage.tasks.classification import Classification
from tutelage.tasks.figure_kinds import CLASSIFICATION, TaskFigures
from tutelage.tasks.language_model import LanguageModel
from tutelage.tasks.metrics import dense
from tutelage.tasks.multilabel import MultiLabel
from tutelage.tasks.predictions import SavedPredictions, SavedTotals, as_saved
from tutelage.tasks.regression import Regression
from tutelage.tasks.segmentation import Segmentation
from tutelage.tasks.token_classification import TokenClassification

TAGS = ["O", "B-per", "I-per", "B-loc", "I-loc"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(high, *shape, ignored=True):
    found = torch.randint(high, shape, generator=torch.Generator().manual_seed(1))
    if ignored:
        found[draw(*shape, seed=2) > 0.8] = -100
    return found


def multilabels(n, k):
    found = (draw(n, k, seed=3) > 0.3).float()
    found[draw(n, k, seed=4) > 1] = torch.nan
    return found


# task → logits, labels, width
CASES = {
    "classification": (Classification(), draw(40, 5), integers(5, 40, ignored=False)),
    "multilabel": (MultiLabel(), draw(40, 4), multilabels(40, 4)),
    "regression": (Regression(), draw(40, 1), draw(40, 1, seed=5)),
    "segmentation": (Segmentation(), draw(40, 3, 4, 5), integers(5, 40, 3, 4)),
    "token_classification": (TokenClassification(), draw(40, 7, 5), integers(5, 40, 7)),
    "language_model": (LanguageModel(), draw(40, 7, 11), integers(11, 40, 7)),
}


@pytest.fixture(params=CASES)
def case(request):
    task, logits, label = CASES[request.param]
    task.name_outputs(TAGS if request.param == "token_classification" else [])
    return task, logits, label


def stored(task, logits, label, teacher=None, batch=16):
    def batches():
        for i in range(0, len(label), batch):
            rows = torch.arange(i, min(i + batch, len(label)))
            yield {"input": rows, "label": label[rows], "key": rows}

    look = None if teacher is None else lambda fields: {"logits": teacher[fields["key"]]}
    found, own = measure(lambda rows: logits[rows], batches(), "cpu", task, look)
    return as_saved(found), own


def test_validation_gives_the_figures_of_what_is_stored(case):
    task, logits, label = case
    teacher = logits + draw(*logits.shape, seed=7)
    validation = task.validation(logits.shape[-1])
    for i in range(0, len(label), 16):
        rows = slice(i, i + 16)
        shown = validation.update(logits[rows], label[rows], teacher[rows])
    own, _ = stored(task, logits, label, None if task.keeps_logits else teacher)
    beside = stored(task, teacher, label)[0] if task.keeps_logits else None
    figures = task.figures(own, beside)
    assert set(shown) == set(task.on_validation(True))
    for name, metric in shown.items():
        assert float(metric.compute()) == pytest.approx(figures[name], rel=1e-4, abs=1e-5), name
    assert task.headline in figures


def test_the_size_of_batches_does_not_matter(case):
    task, logits, label = case
    a, b = (task.figures(stored(task, logits, label, batch=size)[0]) for size in (5, 40))
    assert a == pytest.approx(b, rel=1e-12)


def test_what_stands_where_no_label_counts_changes_nothing(case):
    task, logits, label = case
    if task.name in ("classification", "regression"):
        pytest.skip("every label counts")
    other = logits.clone()
    other[label.isnan() if label.is_floating_point() else label < 0] = 50.0
    a, b = (task.figures(stored(task, x, label)[0]) for x in (logits, other))
    assert a == b


def test_labels_of_every_other_task_are_refused_in_a_sentence(case):
    task, _, label = case
    task.check_labels("train", label)
    for other, _, labels in CASES.values():
        same = labels.dim() == label.dim() and labels.is_floating_point() == label.is_floating_point()
        if not same:
            with pytest.raises(TutelageError, match=f"task={task.name} needs labels that are"):
                task.check_labels("train", labels)
        assert other.logits_shape(labels, 9)[0] == len(labels)


def test_multilabel_figures_are_scikit_learns():
    _, logits, label = CASES["multilabel"]
    own = stored(MultiLabel(), logits, label)[0]
    found = MultiLabel().figures(own)
    z, y = logits.double().numpy(), label.numpy()
    known = ~np.isnan(y)
    each = [sklearn.metrics.average_precision_score(y[known[:, k], k], z[known[:, k], k]) for k in range(4)]
    assert found["map"] == pytest.approx(np.mean(each))
    flat, said = y[known], z[known] > 0
    assert found["f1_micro"] == pytest.approx(sklearn.metrics.f1_score(flat, said))
    macro = [sklearn.metrics.f1_score(y[known[:, k], k], z[known[:, k], k] > 0) for k in range(4)]
    assert found["f1_macro"] == pytest.approx(np.mean(macro))
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(flat, 1 / (1 + np.exp(-z[known]))))
    assert found["label_accuracy"] == pytest.approx((flat == said).mean())


def test_bernoulli_kl_is_torchs():
    logits, teacher = draw(30, 4).double(), 3 * draw(30, 4, seed=9).double()
    label = torch.zeros(30, 4)
    own, beside = (stored(MultiLabel(), x, label)[0] for x in (logits, teacher))
    found = MultiLabel().figures(own, beside)
    p, q = (torch.distributions.Bernoulli(logits=x.float().double()) for x in (logits, teacher))
    assert found["kl_teacher"] == pytest.approx(float(torch.distributions.kl_divergence(q, p).mean()), rel=1e-6)


@pytest.mark.parametrize("targets", [1, 3])
def test_regression_figures_are_scikit_learns(targets):
    values, label = draw(50, targets), draw(50, targets, seed=5) + draw(50, targets)
    found = Regression().figures(stored(Regression(), values, label)[0])
    x, y = values.double().numpy(), label.double().numpy()
    assert found["rmse"] == pytest.approx(sklearn.metrics.mean_squared_error(y, x) ** 0.5)
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, x))
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(y, x))
    for name, oracle in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        assert found[name] == pytest.approx(np.mean([oracle(x[:, d], y[:, d])[0] for d in range(targets)]))


def test_correlations_of_a_constant_are_left_out():
    found = Regression().figures(stored(Regression(), torch.ones(9, 1), draw(9, 1))[0])
    assert {"rmse", "mae", "r2"} <= found.keys()
    assert not {"pearson", "spearman"} & found.keys()


def test_segmentation_figures_are_scikit_learns():
    task, logits, label = CASES["segmentation"]
    found = task.figures(stored(task, logits, label)[0])
    known = label >= 0
    y, choice = label[known].numpy(), logits[known].argmax(-1).numpy()
    assert found["miou"] == pytest.approx(sklearn.metrics.jaccard_score(y, choice, average="macro"))
    assert found["accuracy"] == pytest.approx((y == choice).mean())
    assert found["nll"] == pytest.approx(float(F.cross_entropy(logits[known].double(), label[known])), rel=1e-6)


def test_a_class_that_is_neither_there_nor_predicted_is_no_part_of_the_mean():
    logits = torch.zeros(1, 1, 4, 3)
    logits[..., 0] = 1
    assert Segmentation().figures(stored(Segmentation(), logits, torch.zeros(1, 1, 4).long())[0])["miou"] == 1.0


def test_perplexity_is_the_exponential_of_the_nll():
    task, logits, label = CASES["language_model"]
    found = task.figures(stored(task, logits, label)[0])
    nll = float(F.cross_entropy(logits.double().flatten(0, 1), label.flatten()))
    assert found["nll"] == pytest.approx(nll, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nll), rel=1e-6)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-a I-a O", {("a", 1, 2)}),
        ("B-a B-a", {("a", 0, 0), ("a", 1, 1)}),
        ("I-a I-a I-b", {("a", 0, 1), ("b", 2, 2)}),
        ("B-a I-b", {("a", 0, 0), ("b", 1, 1)}),
        ("O O", set()),
        ("B-a I-a", {("a", 0, 1)}),
    ],
)
def test_spans_are_conllevals(tags, expected):
    assert dense.spans(tags.split()) == expected


def test_span_f1_counts_whole_spans():
    task = TokenClassification("span_f1")
    task.name_outputs(TAGS)
    label = torch.tensor([[1, 2, 0, 3, -100], [0, 1, -100, 2, 0]])
    said = torch.tensor([[1, 2, 0, 0, 4], [0, 1, 4, 2, 3]])
    found = task.figures(stored(task, F.one_hot(said, 5).float(), label)[0])
    assert found["span_f1"] == pytest.approx(2 * 2 / (3 + 3))  # there: per, loc, per; predicted: per, per, loc


# -- headline, metrics of one's own, documents ------------------------------------------------------------------------


def test_a_metric_of_ones_own_is_a_figure():
    top2 = MulticlassAccuracy(num_classes=5, top_k=2, average="micro")
    task = Classification("top2", {"top2": top2})
    _, logits, label = CASES["classification"]
    _, own = stored(task, logits, label)
    expected = (logits.topk(2).indices == label[:, None]).any(1).float().mean()
    assert own == {"top2": pytest.approx(float(expected))}
    assert task.mode("val/top2") == "max"
    shown = task.validation(5).update(logits, label, None)
    assert float(shown["top2"].compute()) == pytest.approx(float(expected))


def test_a_metric_of_ones_own_that_does_not_take_the_predictions_is_known_before_training():
    _, logits, label = CASES["classification"]
    Classification(metrics={"top": MulticlassAccuracy(num_classes=5)}).try_metrics(logits, label)
    with pytest.raises(TutelageError, match=r"task\.metrics\.top: MulticlassAccuracy does not take predictions .*5\]"):
        Classification(metrics={"top": MulticlassAccuracy(num_classes=7)}).try_metrics(logits, label)


def test_labels_of_another_task_name_the_tasks_that_learn_from_them():
    with pytest.raises(TutelageError, match=r"of which task=multilabel, task=regression learn$"):
        Classification().check_labels("train", torch.rand(4, 3))
    with pytest.raises(TutelageError, match=r"of which task=segmentation learns$"):
        Classification().check_labels("train", torch.zeros(4, 3, 3, dtype=torch.long))
    for task in (Classification(), MultiLabel(), Regression()):
        with pytest.raises(
            TutelageError, match=r"integers with 1 axis an example.*become floats by data\.label_dtype=f"
        ):
            task.check_labels("train", torch.zeros(4, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"headline": "acuracy"}, "no figure 'acuracy' that is measured while training; did you mean 'accuracy'"),
        ({"headline": "ece"}, "no figure 'ece' that is measured while training"),
        ({"metrics": {"mine": 3}}, "task.metrics.mine must be a torchmetrics Metric; found int"),
        ({"metrics": {"nll": MulticlassAccuracy(3)}}, "task.metrics.nll: the name is taken"),
    ],
)
def test_what_is_no_figure_is_refused(arguments, message):
    with pytest.raises(TutelageError, match=message):
        Classification(**arguments)


def test_a_headline_that_the_data_can_not_have_is_refused_before_training():
    with pytest.raises(TutelageError, match="headline=pearson is measured while training if an example has one"):
        Regression("pearson").validation(3)
    with pytest.raises(TutelageError, match="headline=span_f1 needs BIO tags"):
        TokenClassification("span_f1").name_outputs(["noun", "verb"])
    with pytest.warns(UserWarning, match="will save all targets"):
        assert "spearman" in Regression("spearman").torchmetrics(1)


def test_a_metric_of_several_numbers_is_refused():
    task = Regression(metrics={"each": ExplainedVariance(multioutput="raw_values")})
    with pytest.raises(TutelageError, match=r"task.metrics.each must return one number, such as a mean; found \[2\]"):
        stored(task, draw(9, 2), draw(9, 2, seed=1))


def test_figures_of_a_document_are_read_back():
    figures = Regression("mae").figure_kinds
    assert TaskFigures.of({"task": figures.document()}) == figures
    assert TaskFigures.of({}) == CLASSIFICATION


@pytest.mark.parametrize("damage", [3, {}, {"name": "x", "headline": "y", "figures": {}}, {"figures": {"a": {"b": 1}}}])
def test_a_damaged_entry_is_a_sentence(damage):
    with pytest.raises(TutelageError, match="its entry 'task' is damaged"):
        TaskFigures.of({"task": damage})


def test_baselines_are_those_of_constant_answers():
    label = draw(200, 1, seed=5)
    constant = as_saved(SavedPredictions(np.full((200, 1), float(label.mean())), label.numpy(), np.arange(200)))
    value, _ = Regression().baseline(constant)
    assert Regression().figures(constant)["rmse"] == pytest.approx(value, rel=1e-6)
    label = torch.tensor([[[0, 0, 0, 2], [0, 0, 2, -100]]])  # 5 of 7 pixels; class 1 is nowhere
    constant = F.one_hot(torch.zeros_like(label), 3).float()
    saved, _ = stored(Segmentation(), constant, label)
    value, _ = Segmentation().baseline(saved)
    assert value == pytest.approx(5 / 7 / 2) == pytest.approx(Segmentation().figures(saved)["miou"])
    assert Segmentation(headline="accuracy").baseline(saved)[0] == pytest.approx(5 / 7)
    words, tags = LanguageModel(), TokenClassification()
    assert words.baseline(SavedTotals({})) is None
    words.name_outputs([str(i) for i in range(11)])
    saved, _ = stored(words, torch.zeros(2, 3, 11), integers(11, 2, 3))
    assert words.baseline(saved)[0] == pytest.approx(words.figures(saved)["nll"])
    tags.name_outputs(TAGS)
    assert tags.baseline(SavedTotals({}))[0] == pytest.approx(1 / 5)
