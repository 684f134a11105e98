"""The taps that losses read of the networks of the published tables, and their weights.

The expectations are written from the authors' code and RepDistiller's and mdistiller's, where a ResNet has the features
[stem, three stages, pooled], VGG [five stages, pooled], WRN [first convolution, three sums of blocks, pooled]: AT, NST
and VID read all but the first and the pooled one, FSP the first, too, FitNet number 2, SP and FT the last map.
"""

from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tutelage.config import factory

STAGES = {
    "resnet8x4": ["stage1", "stage2", "stage3"],
    "vgg8": ["stage2", "stage3", "stage4", "stage5"],
    "wrn_16_2": ["stage1", "stage2", "stage3"],
    "shufflenet_v2": ["stage1", "stage2", "stage3"],
    "mobilenet_v2": ["stage1", "stage2", "stage3", "stage4"],
    "resnet50": ["stage1", "stage2", "stage3", "stage4"],
    "cnn": ["stage1", "stage2"],
}
SAME = {"resnet8x4": "resnet32x4", "vgg8": "vgg13", "wrn_16_2": "wrn_40_2"}


def composed(compose, loss: str, student: str, teacher: str = "", *more: str) -> DictConfig:
    teacher = teacher or SAME.get(student, student)
    cfg = compose(f"loss={loss}", f"model@student={student}", f"model@teacher={teacher}", *more)
    return factory.stage_config(cfg, "student")


def read(stage: DictConfig, term: str) -> tuple[Any, Any]:
    node = stage.loss.terms[term]
    return tuple(OmegaConf.to_container(OmegaConf.create([node.inputs.student, node.targets.teacher])))


def of(source: str, taps: list[str], ending: str = "") -> list[str]:
    return [f"{source}.{tap}{ending}" for tap in taps]


@pytest.mark.parametrize("student", STAGES)
@pytest.mark.parametrize(("loss", "ending"), [("at", ""), ("nst", ""), ("vid", ""), ("ab", "_preact")])
def test_losses_over_stages_read_every_map_but_the_stem(compose, loss, ending, student):
    found = read(composed(compose, loss, student), loss)
    assert found == (of("student", STAGES[student], ending), of("teacher", STAGES[student], ending))


def test_networks_of_different_stages_meet_at_the_last(compose):
    found = read(composed(compose, "at", "mobilenet_v2", "vgg13"), "at")
    assert found == (of("student", STAGES["mobilenet_v2"]), of("teacher", STAGES["vgg8"]))
    student, teacher = read(composed(compose, "at", "resnet8x4", "vgg13"), "at")
    assert student == of("student", ["stage1", "stage2", "stage3"])
    assert teacher == of("teacher", ["stage3", "stage4", "stage5"])


def test_stages_that_are_said_are_read_as_they_are(compose):
    stage = composed(compose, "reviewkd", "resnet8x4", "", "loss.stages=[stage2,embedding]")
    assert read(stage, "review") == (
        ["student.stage2", "student.embedding"],
        ["teacher.stage2_preact", "teacher.embedding"],
    )


@pytest.mark.parametrize(("student", "first"), [("resnet8x4", ["stem"]), ("vgg8", ["stem"]), ("cnn", [])])
def test_fsp_reads_the_stem_too(compose, student, first):
    assert read(composed(compose, "fsp", student), "fsp")[0] == of("student", first + STAGES[student])
    if student == "vgg8":
        assert composed(compose, "fsp", student).student.taps.stem == "stage1"


def test_ofd_reads_pre_activations_and_their_batch_normalisation(compose):
    node = composed(compose, "ofd", "vgg8").loss.terms.ofd
    assert node.inputs.student == of("student", STAGES["vgg8"], "_preact")
    assert node.targets.bn_weight == of("teacher", STAGES["vgg8"], "_norm.weight")
    assert node.targets.bn_bias == of("teacher", STAGES["vgg8"], "_norm.bias")


@pytest.mark.parametrize("student", ["resnet8x4", "vgg8", "wrn_16_2"])
def test_reviewkd_reads_the_pooled_feature_and_the_teacher_before_its_relu(compose, student):
    found = read(composed(compose, "reviewkd", student), "review")
    assert found[0] == [*of("student", STAGES[student]), "student.embedding"]
    assert found[1] == [*of("teacher", STAGES[student], "_preact"), "teacher.embedding"]


@pytest.mark.parametrize(
    ("loss", "term", "tap"),
    [
        ("fitnet", "hint", {"resnet8x4": "stage2", "vgg8": "stage3", "wrn_16_2": "stage2", "mlp": "embedding"}),
        ("sp", "sp", {"resnet8x4": "stage3", "vgg8": "stage5", "wrn_16_2": "stage3", "mlp": "embedding"}),
        ("ft", "ft", {"resnet8x4": "stage3", "vgg8": "stage5", "wrn_16_2": "stage3"}),
        ("mgd", "mgd", {"resnet8x4": "stage3", "resnet50": "stage4"}),
        ("srrl", "srrl", {"resnet8x4": "last", "wrn_16_2": "last", "mlp": "embedding", "cnn": "embedding"}),
        ("rkd", "rkd", {"resnet8x4": "embedding"}),
        ("cat_kd", "cat", {"wrn_16_2": "last"}),
    ],
)  # fmt: skip
def test_losses_over_one_tap_read_the_published_one(compose, loss, term, tap):
    for student, expected in tap.items():
        assert read(composed(compose, loss, student), term) == (f"student.{expected}", f"teacher.{expected}")


def test_a_tap_that_is_said_is_read(compose):
    found = read(composed(compose, "sp", "resnet8x4", "", "loss.tap=embedding"), "sp")
    assert found == ("student.embedding", "teacher.embedding")


def test_the_sums_of_a_wide_resnet_are_raw_and_its_last_map_is_not(compose):
    stage = composed(compose, "at", "wrn_16_2", "", "data=cifar10")
    net = factory.network(stage.student, 0).eval()
    net.register_taps(["stage1", "stage1_preact", "last"])
    with torch.no_grad():
        signals = net(torch.randn(2, 3, 32, 32))
    assert (signals["stage1"] < 0).any()
    assert torch.equal(net.net.stage2[0].bn1(signals["stage1"]), signals["stage1_preact"])
    assert (signals["last"] >= 0).all()


# loss → term, its weight at alpha = 1/2 and numbers inside, of CIFAR and of ImageNet
SETTINGS: dict[str, tuple[str, dict[str, float], dict[str, float]]] = {
    "dist": ("dist", {"weight": 2, "temperature": 4}, {"weight": 2, "temperature": 1}),
    "dkd": ("dkd", {"weight": 1, "beta": 8, "temperature": 4, "length": 20},
            {"weight": 1, "beta": 0.5, "temperature": 1, "length": 1}),
    "nkd": ("nkd", {"weight": 1, "gamma": 3.5, "temperature": 3}, {"weight": 1, "gamma": 1.5, "temperature": 1}),
    "wsld": ("wsld", {"weight": 2.25, "temperature": 4}, {"weight": 2.5, "temperature": 2}),
    "srrl": ("srrl", {"weight": 1, "feature": 1, "logit": 5}, {"weight": 1, "feature": 1, "logit": 1}),
    "mgd": ("mgd", {"weight": 0.0012, "ratio": 0.15}, {"weight": 7e-5, "ratio": 0.15}),
    "ofd": ("ofd", {"weight": 1e-3}, {"weight": 1e-4}),
    "reviewkd": ("review", {"weight": 5, "length": 20}, {"weight": 1, "length": 1}),
}  # fmt: skip


@pytest.mark.parametrize("loss", SETTINGS)
def test_a_setting_has_its_published_numbers(compose, loss):
    term, *tables = SETTINGS[loss]
    for setting, table in zip(("cifar", "imagenet"), tables, strict=True):
        node = composed(compose, loss, "resnet8x4", "", f"loss.setting={setting}").loss.terms[term]
        numbers = {"weight": node.weight, **node.loss, **node.get("schedule", {})}
        assert {name: numbers[name] for name in table} == pytest.approx(table)


def test_numbers_that_are_said_win_over_a_setting(compose):
    stage = composed(compose, "dkd", "resnet8x4", "", "loss.temperature=2", "loss.setting=imagenet")
    assert stage.loss.terms.dkd.loss.temperature == 2
    assert stage.loss.terms.dkd.loss.beta == 0.5


def test_multi_level_and_dynamic_temperatures_weigh_as_their_authors_do(compose):
    mlkd = composed(compose, "mlkd", "resnet8x4").loss.terms
    assert (mlkd.hard.weight, mlkd.mlkd.weight) == pytest.approx((0.1, 0.675))  # 6.75 to 1, and relations a third
    assert (mlkd.mlkd.loss.instance, mlkd.mlkd.loss.batch) == pytest.approx((1, 1 / 3), rel=1e-6)
    dtkd = composed(compose, "dtkd", "resnet8x4").loss.terms
    assert dtkd.keys() == {"hard", "dtkd"}  # one term, so that its warm-up is of both parts
    assert (dtkd.dtkd.weight, dtkd.dtkd.loss.alpha, dtkd.dtkd.loss.beta) == (1, 3, 1)
    assert dtkd.dtkd.schedule.length == 20
