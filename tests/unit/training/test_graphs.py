"""Steps that are replayed: when, with which numbers, and what can't be. The recorder of a CPU takes CUDA's place."""

import logging

import pytest
import tape
import torch
from omegaconf import open_dict
from torch import nn

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.runtime import devices
from tutelage.sources.base import Source
from tutelage.training import fast_loop, graphs
from tutelage.training.fast_loop import LeanEpochLoop, Quiet
from tutelage.training.graphs import PROOFS, WARM, GraphedStep, check_option, why_not

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")

CUDA = torch.device("cuda", 0)


class Losses(Quiet):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"]))


class Counting(LeanEpochLoop):
    """Lean steps, all that the digits have."""

    lean = 0

    def _step(self, data_fetcher):
        self.lean += 1
        super()._step(data_fetcher)


@pytest.fixture
def fit(compose, tmp_path, monkeypatch):
    """``fit(graph, *overrides)`` → losses, weights and optimizer's state, the loop."""
    monkeypatch.setattr(fast_loop, "why_not", lambda *_: None)
    monkeypatch.setattr(graphs, "cuda_capture", tape.capture)
    monkeypatch.setattr(devices, "waits", lambda device: True)

    def run(graph, *overrides, others=(), **options):
        cfg = compose(
            "logger=none", "callbacks.progress=null", "data.batch_size=32", "trainer.log_every_n_steps=9",
            "trainer.max_epochs=2", "model@teacher=mlp", "model@student=mlp", *overrides,
        )  # fmt: skip
        with open_dict(cfg):
            cfg.trainer.update(options)
        stage = factory.stage_config(cfg, "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        trainer = factory.trainer(stage, "student", tmp_path, tmp_path, len(data.train_dataloader()))
        trainer.callbacks += [losses := Losses(), *others]
        loop = Counting(trainer, trainer.min_steps, trainer.max_steps)
        loop.graph = graph
        trainer.fit_loop.epoch_loop = loop
        trainer.fit(module, datamodule=data)
        return losses.seen, [x.clone() for x in module.state_dict().values()], trainer, loop

    return run


CASES = {
    "as it is": (),
    "dropout and augmentation": (
        "student.net.dropout=0.5", "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]",
    ),
    "a schedule by step": ("scheduler=cosine", "scheduler.interval=step"),
    "sgd": ("optimizer=sgd",),
    "a moving average": ("sources=ema_teacher",),
    "batch normalisation and a bank": ("loss=crd", "model@student=resnet8"),
    "a loss that keeps what it predicted": ("loss=ps_kd",),
    "a loss with a schedule": ("loss=ctkd",),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_the_eager_ones(fit, case):
    options = {"limit_train_batches": 16, "max_epochs": 1} if "bank" in case else {}
    losses, state, trainer, loop = fit("auto", *CASES[case], **options)
    expected, same, eager, _ = fit("never", *CASES[case], **options)
    assert loop._graphed.why is None
    assert loop._graphed.replayed == loop.lean - WARM - PROOFS > 5
    assert losses == pytest.approx(expected, rel=1e-5)
    for a, b in zip(state, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert trainer.global_step == eager.global_step
    assert trainer.fit_loop.state_dict() == eager.fit_loop.state_dict()
    mine, theirs = (one.optimizers[0].state_dict()["param_groups"] for one in (trainer, eager))
    assert mine == theirs  # a checkpoint holds plain numbers


def test_validation_and_best_weights_see_replayed_weights(fit):
    _, _, trainer, _ = fit("auto")
    _, _, eager, _ = fit("never")
    for name in ("val/accuracy", "val/nll"):
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(eager.callback_metrics[name]), rel=1e-3)


def toy(step_of=None, modules=None, **options):
    torch.manual_seed(0)
    net = modules or nn.Linear(4, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)

    def step(batch):
        loss = (step_of or (lambda b: net(b["input"]).square().mean()))(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return net, optimizer, step, GraphedStep(step, optimizer, net, [net], tape.capture)


def batch(n=8):
    return {"input": torch.randn(n, 4)}


def run(graphed, step, steps, make=batch):
    for _ in range(steps):
        one = make()
        if graphed(one, lambda: None) is None:
            step(one)


def test_what_rebinds_a_tensor_runs_eagerly(caplog):
    class Rebinds(nn.Linear):
        def forward(self, x):
            self.seen = self.seen + x.mean()
            return super().forward(x) + self.seen

    net = Rebinds(4, 3)
    net.register_buffer("seen", torch.zeros(()))
    _, _, step, graphed = toy(modules=net)
    run(graphed, step, WARM + PROOFS + 3)
    assert "it replaces a tensor" in graphed.why
    assert "steps run eagerly" in caplog.text
    assert graphed.replayed == 0


def test_a_step_that_depends_on_python_is_found_by_comparison():
    calls = [0]

    class Counts(nn.Linear):
        def forward(self, x):
            calls[0] += 1
            return super().forward(x) * calls[0]

    _, _, step, graphed = toy(modules=Counts(4, 3))
    run(graphed, step, WARM + PROOFS)
    assert "differs from the eager one" in graphed.why


def test_a_step_that_reads_a_value_runs_eagerly_with_the_right_weights():
    def weights(reads):
        net = nn.Linear(4, 3)

        def twice(one):
            loss = net(one["input"]).square().mean()
            return loss * (2.0 if not reads or loss.item() > 0 else 1.0)

        _, _, step, graphed = toy(twice, net)
        nn.init.ones_(net.weight)
        nn.init.ones_(net.bias)
        run(graphed if reads else (lambda *_: None), step, 9)
        return net.weight, graphed.why

    found, why = weights(reads=True)
    assert why == "a step can't be captured: operation not permitted when stream is capturing"
    assert torch.equal(found, weights(reads=False)[0])


def test_a_short_batch_runs_eagerly_and_the_next_is_replayed():
    _, _, step, graphed = toy()
    run(graphed, step, WARM + PROOFS + 1)
    assert graphed.replayed == 1
    assert graphed(batch(5), lambda: None) is None
    run(graphed, step, 2)
    assert graphed.replayed == 3


def test_another_rate_is_taken_over_another_setting_is_not():
    net, optimizer, step, graphed = toy()
    run(graphed, step, WARM + PROOFS + 1)
    optimizer.param_groups[0]["lr"] = 0.0
    weight = net.weight.clone()
    run(graphed, step, 1)
    assert torch.equal(net.weight, weight)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    run(graphed, step, 1)
    assert graphed.why == "the optimizer's settings change from step to step"


def test_what_changes_by_epoch_in_python_has_the_graph_made_anew():
    class Scaled(nn.Linear):
        factor = 1.0

        def forward(self, x):
            return super().forward(x) * self.factor

    net, _, step, graphed = toy(modules=Scaled(4, 3))
    run(graphed, step, WARM + PROOFS + 2)
    graphed.on_epoch_start()
    run(graphed, step, 1)
    assert graphed.replayed == 3
    net.factor = 2.0
    graphed.on_epoch_start()
    run(graphed, step, WARM + PROOFS)
    assert graphed.replayed == 3
    run(graphed, step, 2)
    assert (graphed.replayed, graphed.why) == (5, None)


def part(**attributes):
    module = nn.Linear(2, 2)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


class OnHost(Source):
    asks_host = True


FUSED = torch.optim.Adam(nn.Linear(2, 2).parameters(), fused=True)


@pytest.mark.parametrize(
    ("why", "arguments"),
    [
        (None, {}),
        ("the device is cpu", {"device": torch.device("cpu")}),
        ("Lightning's standard steps", {"lean": False}),
        ("Adam is not fused", {"optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters())}),
        ("LBFGS is not fused", {"optimizer": torch.optim.LBFGS(nn.Linear(2, 2).parameters())}),
        ("signals of OnHost come from the host", {"module": nn.Sequential(OnHost())}),
        ("the network is compiled", {"module": nn.Sequential(part(_compiled_call_impl=print))}),
    ],
)
def test_what_is_known_to_prevent_it_is_said(why, arguments):
    found = why_not(**{"module": nn.Linear(2, 2), "optimizer": FUSED, "device": CUDA, "lean": True} | arguments)
    assert (found is None) if why is None else (why in found)


def test_a_term_of_few_labels_prevents_it(compose):
    stage = factory.stage_config(compose("data.labelled=200"), "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.dry_run(data)
    assert why_not(module, FUSED, CUDA, True).startswith("the number of rows that a term sees")


def test_on_a_cpu_it_says_why_not_in_one_line(compose, tmp_path, caplog):
    cfg = compose("stages.student.graph=auto", "logger=none", "callbacks.progress=null")
    with open_dict(cfg):
        cfg.trainer.max_epochs, cfg.trainer.limit_train_batches = 2, 4
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    trainer = factory.trainer(stage, "student", tmp_path, tmp_path, 4)
    with caplog.at_level(logging.INFO):
        trainer.fit(module, datamodule=data)
    assert [line for line in caplog.messages if "graph=" in line] == [
        "graph=auto: steps run eagerly: the device is cpu; graphs need CUDA"
    ]


def test_stages_have_their_own(compose):
    cfg = compose("stages.student.graph=auto")
    assert [factory.stage_config(cfg, name).graph for name in factory.STAGES] == ["never", "auto", "auto"]
    with pytest.raises(TutelageError, match=r"stages.teacher.graph must be one of \['never', 'auto'\]; found 'on'"):
        check_option("on", "teacher")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: it has never run on one")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_replayed_steps_are_the_eager_ones(fit, case, monkeypatch):
    monkeypatch.undo()
    options = {"limit_train_batches": 16, "max_epochs": 1} if "bank" in case else {}
    losses, _, _, loop = fit("auto", *CASES[case], **options)
    expected, _, _, _ = fit("never", *CASES[case], **options)
    assert loop._graphed.why is None
    assert loop._graphed.replayed == loop.lean - WARM - PROOFS
    assert losses == pytest.approx(expected, rel=1e-3)
