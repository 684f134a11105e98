"""Fault 23: what a user may mistype is refused before anything is built, and the nearest key is named."""

import json
import re
import shutil

import lightning as L
import pytest
from command import TINY
from lightning.pytorch.plugins.precision import MixedPrecision

import tutelage as tt
from tutelage.config import factory
from tutelage.config.paths import conf_dir
from tutelage.config.validate import check
from tutelage.errors import TutelageError

LIGHTNING = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["Tt=3"], "'Tt': known: assistants, callbacks, data"),
        (["trainer=null"], "a group of the config, such as data=… or callbacks=…, takes the name of one of its"),
        (["+Tt=3"], "Tt: nothing reads this key"),
        (["+Tt={a: 3}"], "Tt: nothing reads this key"),
        (["+temperature=3"], "temperature: nothing reads this key; 'temperature': did you mean loss.temperature?"),
        (["loss.temprature=3"], "'temprature': did you mean 'temperature'?"),
        (["+loss.temprature=3"], "loss.temprature: nothing reads this key; 'temprature': did you mean 'temperature'?"),
        (["++loss.temprature=3"], "'temprature': did you mean 'temperature'?"),
        (["+loss.terms.soft.loss.temprature=3"], "loss.terms.soft.loss.temprature: "),
        (["loss.temperature=0"], "loss.temperature must be a number > 0; found 0"),
        (["loss.temperature=-1"], "loss.temperature must be a number > 0; found -1"),
        (["loss.temperature=nan"], "loss.temperature must be a number > 0; found nan"),
        (["loss.temperature=inf"], "loss.temperature must be a number > 0; found inf"),
        (["loss.temperature=null"], "loss.temperature must be a number > 0; found None"),
        (["loss.temperature=hot"], "loss.temperature must be a number > 0; found 'hot'"),
        (["loss.alpha=7"], "loss.alpha must be a number ≥ 0 and ≤ 1; found 7"),
        (["loss.alpha=-0.1"], "loss.alpha must be a number ≥ 0 and ≤ 1; found -0.1"),
        (["loss.alpha=nan"], "loss.alpha must be a number ≥ 0 and ≤ 1; found nan"),
        (["loss.alpha=null"], "loss.alpha must be a number ≥ 0 and ≤ 1; found None"),
        (["loss.label_smoothing=2"], "loss.label_smoothing must be a number ≥ 0 and ≤ 1; found 2"),
        (["stages.teacher.label_smoothing=-1"], "stages.teacher.label_smoothing must be a number ≥ 0 and ≤ 1"),
        (["optimizer.lr=nan"], "optimizer.lr must be a number > 0; found nan"),
        (["optimizer.lr=0"], "optimizer.lr must be a number > 0; found 0"),
        (["stages.control.optimizer.lr=nan"], "stages.control.optimizer.lr must be a number > 0; found nan"),
        (["optimizer.weight_decay=nan"], "optimizer.weight_decay must be a number ≥ 0; found nan"),
        (["optimizer=lamb", "optimizer.max_grad_norm=-1"], "optimizer.max_grad_norm must be a number > 0, or null; fo"),
        (["optimizer=lamb", "+optimizer.trust_clip=2"], "optimizer.trust_clip must be true or false; found 2"),
        (["+optimizer.betas=[0.9,1]"], "optimizer.betas must be numbers ≥ 0 and < 1; found [0.9, 1]"),
        (["+stages.student.optimizer.eps=0"], "stages.student.optimizer.eps must be a number > 0; found 0"),
        (["optimizer.weight_decay=true"], "optimizer.weight_decay must be a number ≥ 0; found True"),
        (["+optimizer.groups={loss: {weight_decay: -1}}"], "optimizer.groups.loss.weight_decay must be a number ≥ 0; "),
        (["student.net.dropout=nan"], "student.net.dropout must be a finite number; found nan"),
        (["optimizer.lr=${nowhere}"], "Interpolation key 'nowhere' not found"),
        (["los=soft_target"], "'los': did you mean 'loss'?"),
        (["loss=soft_targt"], "'soft_targt': did you mean 'soft_target' or 'soft_tree'?"),
        (["model@studnt=mlp"], "Did you mean to override one of model@student, model@teacher?"),
        (["model@student=mpl"], "'mpl': did you mean 'mlp'"),
        (["student.net.widht=3"], "'widht': did you mean 'widths'?"),
        (["+student.net.widht=3"], "tutelage.models.mlp.MLP takes no 'widht'; did you mean 'widths'?"),
        (["student.net._target_=tutelage.models.mlp.MPL"], "tutelage.models.mlp has no 'MPL'; did you mean 'MLP'?"),
        (["+data.val_sise=3"], "tutelage.data.digits.Digits takes no 'val_sise'; did you mean 'val_size'"),
        (["data.augment=[{_target_: tutelage.data.augment.Shift, pixel: 1}]"], "data.augment[0].pixel: "),
        (["+trainer.max_epoch=3"], "lightning.Trainer takes no 'max_epoch'; did you mean 'max_epochs'"),
        (["+stages.student.trainer.max_epoch=3"], "stages.student.trainer.max_epoch: lightning.Trainer takes no"),
        (["+stages.student.optimizer.weight_decy=1"], "stages.student.optimizer.weight_decy: torch.optim.Adam"),
        (["+stages.studnt.trainer.max_epochs=3"], "stages.studnt: nothing reads this key; 'studnt': did"),
        (["+stages.student.otimizer.lr=3"], "'otimizer': did you mean 'optimizer'"),
        (["+model@asistants.first=cnn"], "asistants: nothing reads this key; 'asistants': did you mean"),
        (["seed=1", "seed=2"], "seed is given 2 times; only the last would be used"),
        (["loss.temperature=1", "loss.temperature=9"], "loss.temperature is given 2 times"),
        (["seed=-1"], "seed must be a whole number ≥ 0"),
        (["seed=1.5"], "seed must be a whole number ≥ 0"),
        (["seed=null"], "seed must be a whole number ≥ 0 and ≤ 4294967295; found None"),
        (["seed=5000000000"], "seed must be a whole number ≥ 0 and ≤ 4294967295; found 5000000000"),
        (["stages.teacher.seed=-1"], "stages.teacher.seed must be a whole number ≥ 0"),
        (["trainer.max_epochs=0"], "trainer.max_epochs must be a whole number ≥ 1; found 0"),
        (["trainer.max_epochs=null"], "trainer.max_epochs"),
        (["stages.student.trainer.max_epochs=0"], "stages.student.trainer.max_epochs must be a whole number ≥ 1"),
        (["+trainer.limit_val_batches=0"], "trainer.limit_val_batches must be a number > 0; found 0"),
        (["trainer.devices=0"], "trainer.devices must be at least 1"),
        (["data.batch_size=0"], "data.batch_size must be a whole number ≥ 1; found 0"),
        (
            ["stages.teacher.weights=first"],
            "stages.teacher.weights must be 'last', 'best' or an epoch from 0; found 'first'",
        ),
        (["optimizer=sgd", "+stages.student.optimizer.momentum=-1"], "student.optimizer.momentum must be a number ≥ 0"),
        (["+stages.control.data.labelled=20"], "stages.control.data.labelled: must equal the student's"),
        (["+stages.teacher.data.mean=[0.5]"], "stages.teacher.data.mean: must equal the student's"),
        (["+stages.teacher.data.split_seed=1"], "stages.teacher.data.split_seed: must equal"),
        (["+stages.student.trainer.devices=2"], "trainer.devices: ranks are started once for all stages"),
        (
            [f"+stages.{stage}.trainer.devices=2" for stage in ("teacher", "student")],
            "it must equal trainer.devices, 1; found 2",
        ),
        (["loss=[dkd,dkd]"], r"loss=[dkd,dkd]: dkd is listed twice"),
        (["scheduler=cosine", "scheduler.scheduler.T_max=-3"], "scheduler.scheduler.T_max must be a whole number ≥ 1"),
        (["scheduler=cosine", "+scheduler.scheduler.eta_min=-1"], "scheduler.scheduler.eta_min must be a number ≥ 0"),
        (["loss=[soft_target,hard]"], "loss=[soft_target,hard]: hard sets loss.alpha to 0"),
        (["loss=[dkd,nkd]"], "dkd and nkd set loss.temperature to 4.0 and 3.0: give loss.temperature=… for both"),
        (["loss=[dkd,wsld]", "loss.setting=imagenet"], "dkd and wsld set loss.temperature to 1.0 and 2.0"),
        (["loss=[simkd,fitnet]"], "set loss.tap to last and None: give loss.tap=… for both"),
        (["loss=[soft_tree,soft_target]"], "soft_tree and soft_target both have a term 'soft'"),
        (["loss=dkd", "loss.setting=imagnet"], "loss.setting: expected cifar or imagenet, found 'imagnet'"),
        (["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps must be a whole number ≥ 1; found 0"),
        (["+trainer.accumulate_grad_batches=-1"], "accumulate_grad_batches must be a whole number ≥ 1; found -1"),
        (["+trainer.accumulate_grad_batches=2.7"], "accumulate_grad_batches must be a whole number ≥ 1; found 2.7"),
        (["+stages.teacher.trainer.accumulate_grad_batches=0"], "accumulate_grad_batches must be a whole"),
        (["+trainer.accumulate_grad_batches=[1,2]"], "must be a whole number ≥ 1; found [1, 2]"),
        (["+trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be a number ≥ 0; found -1"),
        (["+trainer.check_val_every_n_epoch=two"], "check_val_every_n_epoch must be a whole number ≥ 1; found 'two'"),
        (["+trainer.max_steps=x"], "trainer.max_steps must be a whole number ≥ -1; found 'x'"),
        (["+trainer.min_epochs=x"], "trainer.min_epochs must be a whole number ≥ 0; found 'x'"),
        (["+trainer.min_steps=-2"], "trainer.min_steps must be a whole number ≥ 0; found -2"),
        (["+trainer.limit_train_batches=true"], "trainer.limit_train_batches must be a number > 0; found True"),
        (["+trainer.limit_val_batches=x"], "trainer.limit_val_batches must be a number > 0; found 'x'"),
        (["data.repeat_labelled=99999999999999999999"], "repeat_labelled must fit into 64 bits; found"),
        (["data.batch_size=1" + 400 * "0"], "data.batch_size must fit into 64 bits"),
        (["model@student=mlp", "student.net.widths=[8,a]"], "student.net.widths[1] must be a number; found 'a'"),
        (
            ["data.augment=[{_target_: tutelage.data.crops.RandomResizedCrop, scale: [0.08, x]}]"],
            "data.augment[0].scale[1] must be a number; found 'x'",
        ),
        (["data.val_size=abc"], "data.val_size must be a number; found 'abc'"),
        (["data.val_size=-1"], "data.val_size must be a number ≥ 0; found -1"),
        (["data.mean=0.5"], "data.mean must be a list; found 0.5"),
        (["data.long_tail=yes"], "data.long_tail must be a number or null; found 'yes'"),
        (["data.split_seed=[1,2]"], "data.split_seed must be a whole number; found [1, 2]"),
        (["data.mix=5"], "data.mix must be a mapping or null; found 5"),
        (["data.augment=5"], "data.augment must be a list or null; found 5"),
        (["data.views=-1"], "data.views must be a whole number ≥ 1; found -1"),
        (["data.made=5"], "data.made must be a text or null; found 5: as a text data.made=\"'5'\""),
        (["model@student=mlp", "student.net.widths=''"], "student.net.widths must be a list; found ''"),
        (["model@student=mlp", "student.net.dropout=x"], "student.net.dropout must be a number; found 'x'"),
        (["scheduler=cosine", "scheduler.interval=banana"], "scheduler.interval must be epoch or step; found 'banana'"),
        (["paths.artifacts=null"], "paths.artifacts is needed"),
        (["+trainer.max_steps=3"], "trainer.max_steps=3: the teacher is validated for the first time"),
        (["loss.terms.soft.targets.teacher=techer.logits"], "['student', 'teacher']: did you mean 'teacher'?"),
        (["~callbacks.recovery"], "callbacks.recovery is needed"),
        (["callbacks.best=null"], "callbacks.best is needed"),
        (["+stages.teacher.callbacks.best=null"], "stages.teacher.callbacks.best is needed"),
        (
            ["+stages.teacher.callbacks.limit={_target_: tutelage.training.callbacks.max_norm.MaxNorm, limits: 3}"],
            "stages.teacher.callbacks.limit.limits: tutelage.training.callbacks.max_norm.MaxNorm takes no 'limits'",
        ),
        (["+trainer.logger=false"], "trainer.logger=False is not supported: curves are written by the group `logger`"),
        (["+trainer.callbacks=[]"], "trainer.callbacks=[] is not supported: callbacks are the group `callbacks`"),
        (["+trainer.enable_checkpointing=false"], "trainer.enable_checkpointing=False is not supported: the best "
            "weights"),
        (["+trainer.enable_progress_bar=false"], "the progress bar is callbacks.progress; ~callbacks.progress removes "
            "it"),
        (["+trainer.num_sanity_val_steps=2"], "trainer.num_sanity_val_steps=2 is not supported"),
        (["+trainer.default_root_dir=x"], "a run's folder is hydra.run.dir=…"),
        (["+trainer.plugins=[]"], "trainer.plugins=[] is not supported: use trainer.precision"),
        (["+trainer.use_distributed_sampler=true"], "Tutelage distributes each batch among the ranks itself"),
        (["+trainer.barebones=true"], "trainer.barebones=True is not supported"),
        (["+trainer.limit_test_batches=1"], "the test metrics are always of all examples"),
        (["+trainer.max_time='00:00:00:05'"], "is not supported: trainings that a time limit ends are not comparable"),
        (["+stages.control.trainer.max_time='00:00:00:05'"], "stages.control.trainer.max_time=00:00:00:05 is not "
            "supported"),
        (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run=True is not supported: it would leave an incomplete "
            "training"),
        (["+callbacks.clock={_target_: lightning.pytorch.callbacks.Timer, duration: '00:00:00:05'}"],
         "callbacks.clock.duration is not supported: trainings that a time limit ends"),
        (["callbacks.best.monitor=val/acc"], "callbacks.best.monitor: the teacher logs no metric 'val/acc'; did you"),
        (["+stages.student.callbacks.best.monitor=val/kl"], "stages.student.callbacks.best.monitor: the student logs "
            "no metric"),
        (["callbacks.best.monitor=val/agreement"], "no metric 'val/agreement'"),
        (["+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/los}"],
         "callbacks.stop.monitor: the teacher logs no metric 'val/los'"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.EarlyStopping, monitor: train/hrad}}"],
         "callbacks.own.monitor: the teacher logs no metric 'train/hrad'; did you mean 'train/hard'"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.LearningRateMonitor}}", "logger=null"],
         "callbacks.own: LearningRateMonitor needs a logger"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.LearningRateFinder}}"], "callbacks.own: LearningRateFinder is not "
            "supported"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.BatchSizeFinder}}"], "callbacks.own: BatchSizeFinder is not "
            "supported"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.ModelPruning, pruning_fn: l1_unstructured}}"],
         "callbacks.own: ModelPruning is not supported: it renames weights"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.ModelCheckpoint, dirpath: /elsewhere}}"],
         "callbacks.own.dirpath must be relative, within each training's own folder of weights; found '/elsewhere'"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.GradientAccumulationScheduler, scheduling: {{0: 2}}}}",
          "scheduler.interval=step"], "callbacks.own: scheduler.interval=step needs a known number of steps"),
        ([f"+callbacks.own={{_target_: {LIGHTNING}.RichProgressBar}}"], "multiple progress bar callbacks"),
        (["data.num_classes=1"], "data.num_classes must be a whole number ≥ 2; found 1"),
        (["data.root=/a [b]"], "data.root=/a [b]: "),
        (["+trainer.val_check_interval=1000"], "trainer.val_check_interval must be from 1 to 18, the batches of"),
        (["+trainer.limit_val_batches=1e-4"], "trainer.limit_val_batches must be a number of batches, at least 1"),
        (["callbacks.recovery.keep=0"], "callbacks.recovery.keep must be a whole number ≥ 1; found 0"),
        (["stages.teacher.weights=7", "stages.teacher.trainer.max_epochs=7"],
         "stages.teacher.weights=7: the teacher has the epochs 0 to 6"),
        (["sources=cached", "data.views=2", "sources.teacher.views=1",
          "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"],
         "sources.teacher.views=1: must equal data.views=2"),
        (["data=image_folder"], "data.root"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_refused(tmp_path, monkeypatch, overrides, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TutelageError, match=re.escape(said)):
        tt.distill(*overrides, folder=tmp_path / "run")
    assert not list(tmp_path.rglob("*.safetensors"))
    if (status := tmp_path / "run" / "status.json").exists():
        assert json.loads(status.read_text())["state"] == "FAILED"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["Tt=3"], "'Tt': known: assistants, callbacks, data"),
        (["-m", "seed=1,2", "seed=3"], "tutelage distill: seed is given 2 times; only the last would be used"),
        (["loss.alpha=7"], "tutelage distill: loss.alpha"),
        (["callbacks=null"], "a group of the config, such as data=… or callbacks=…, takes the name of one of its"),
        (["student=null"], "tutelage distill: student=null: it must be a section of the config, with keys of its own"),
        (
            ["callbacks=[]"],
            "tutelage distill: callbacks: the config has no such section, which is needed; leave out callb",
        ),
        (
            ["~teacher"],
            "tutelage distill: teacher: the config has no such section, which is needed; leave out teacher=[]",
        ),
        (["stages=null"], "tutelage distill: stages=null: it must be a section of the config, with keys of its own"),
        (
            ["callbacks.best.monitor=val/acc"],
            "tutelage distill: callbacks.best.monitor: the teacher logs no metric 'val/acc'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_from_the_command_line(main, tmp_path, overrides, said):
    answer = main("distill", *overrides, "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert "Traceback" not in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))
    if (status := tmp_path / "run" / "status.json").exists():
        assert json.loads(status.read_text())["state"] == "FAILED"


@pytest.mark.parametrize(
    "overrides",
    [
        ["+trainer.gradient_clip_val=1"],
        ["+optimizer.betas=[.9,.99]"],
        ["+stages.teacher.optimizer.weight_decay=0.1"],
        ["++loss.alpha=0.5"],
        ["+base=0.01", "optimizer.lr=${base}"],
        ["+callbacks.mine={_target_: lightning.pytorch.callbacks.Timer}"],
        ["+trainer.max_time=null", "+trainer.fast_dev_run=false", "+trainer.num_sanity_val_steps=0"],
        ["+trainer.limit_train_batches=2", "+trainer.max_steps=30", "+trainer.accumulate_grad_batches=2"],
        ["+callbacks.own={_target_: faults.PoisonInputAt}", "callbacks.best.monitor=val/own"],
        ["+stages.student.callbacks.best.monitor=val/agreement"],
        ["stages.teacher.weights=6", "stages.teacher.trainer.max_epochs=7"],
        ["~callbacks.finite", "+callbacks.finite={_target_: tutelage.training.callbacks.finite.FiniteLoss}"],
        ["+stages.teacher.callbacks.limit={_target_: tutelage.training.callbacks.max_norm.MaxNorm, limit: 3}"],
        ["+student.taps.first=hidden.0"],
        ["+data.check_finite=false"],
        ["scheduler=cosine", "+stages.student.scheduler.scheduler.eta_min=0.1"],
        ["optimizer@stages.teacher.optimizer=sgd"],
        ["loss=[soft_target,fitnet]"],
        ["loss=[dkd,dist,wsld]"],
        ["loss=[ab,at,sp,mgd]", "model@teacher=vgg4", "model@student=vgg4"],
        ["+callbacks@stages.teacher.callbacks=max_norm"],
        ["+optimizer@stages.specialist.optimizer=sgd", "sources=specialists"],
        ["loss=[fitnet,ft]", "loss.tap=stage3", "model@teacher=vgg4", "model@student=vgg4"],
        ["+loss.terms.more._target_=tutelage.objective.Term", "+loss.terms.more.inputs={input: student.logits}",
         "+loss.terms.more.loss._target_=torch.nn.Identity"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_accepted(compose, overrides):
    check(compose(*overrides), overrides)


YAMLS = {
    "loss: {temprature: 8}": "loss.temprature: nothing reads this key; 'temprature': did you mean 'temperature'?",
    "sede: 3": "sede: nothing reads this key; 'sede': did you mean 'seed'",
    "temperature: 8": "temperature: nothing reads this key; 'temperature': did you mean loss.temperature?",
    "stages: {teacher: {weihgts: best}}": "stages.teacher.weihgts: nothing reads this key; 'weihgts': did",
    "stages: {control: {seed: 3}}": "stages.control.seed: nothing reads this key",
    "stages: {studnt: {optimizer: {lr: 1}}}": "stages.studnt: nothing reads this key; 'studnt': did",
    "stages: {teacher: {otimizer: {lr: 1}}}": "stages.teacher.otimizer: nothing reads this key",
    "stages: {teacher: {scheduler: {intervall: step}}}": "stages.teacher.scheduler.intervall: nothing reads this key",
    "stages: {teacher: {callbacks: {bset: {mode: min}}}}": "stages.teacher.callbacks.bset has no _target_",
    "stages: {teacher: {loss: {terms: {hrad: {weight: 0.5}}}}}": "stages.teacher.loss.terms.hrad has no _target_",
    "stages: {teacher: {loss: {temprature: 3}}}": "stages.teacher.loss.temprature: nothing reads this key",
    "scheduler: {intervall: step}": "scheduler.intervall: nothing reads this key",
    "paths: {output: here}": "paths.output: nothing reads this key; 'output': did you mean 'outputs'?",
    "callbacks: {bset: {monitor: val/nll}}": "callbacks.bset has no _target_, so nothing is built from it; 'bset'",
    "loss: {terms: {hrad: {weight: 0.5}}}": "loss.terms.hrad has no _target_, so nothing is built from it; 'hrad'",
    "optimzer: {_target_: torch.optim.SGD, _partial_: true, lr: 1}": "optimzer: nothing reads this key",
    "optimizer: {_partail_: true}": "optimizer._partail_: torch.optim.Adam takes no '_partail_'; did",
    "teacher: {net: {widhts: [3]}}": "teacher.net.widhts: tutelage.models.cnn.CNN takes no 'widhts'; did",
    "data: {val_sise: 3}": "data.val_sise: tutelage.data.digits.Digits takes no 'val_sise'; did you mean 'val_size'",
    "trainer: {max_epoch: 3}": "trainer.max_epoch: lightning.Trainer takes no 'max_epoch'; did you mean 'max_epochs'",
    "'a.b': 3": "a.b: nothing reads this key",
    "ensemble: {size: 3}": "ensemble: nothing reads this key",
    "sede: 3\nlos: {alpha: 1}": "los: nothing reads this key; 'los': did you mean 'loss'",
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), YAMLS.items(), ids=list(YAMLS))
def test_a_misspelt_key_in_a_yaml_of_one_s_own_is_refused(main, tmp_path, text, said):
    own = tmp_path / "mine" / "experiment"
    own.mkdir(parents=True)
    (own / "one.yaml").write_text(f"# @package _global_\n{text}\n")
    answer = main("distill", "--config-dir", "mine", "experiment=one", "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert "Traceback" not in answer.message


@pytest.mark.parametrize(
    ("file", "text", "overrides", "where"),
    [
        ("experiment/one", "loss: {temperature: 8}", ["experiment=one"], "experiment.loss"),
        ("experiment/one", "seed: 3", ["experiment=one"], "experiment.seed"),
        ("experiment/deep/one", "trainer: {max_epochs: 8}", ["experiment=deep/one"], "experiment.trainer"),
        ("extra/hot", "loss: {temperature: 9}", ["+extra=hot"], "extra.loss"),
        ("data/own", "data: {_target_: tutelage.data.digits.Digits}", ["data=own"], "data.data"),
    ],
)
def test_a_yaml_without_its_package_line_is_refused_and_told_so(main, tmp_path, file, text, overrides, where):
    path = tmp_path / "mine" / f"{file}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    answer = main("distill", "--config-dir", "mine", *overrides, "hydra.run.dir=run")
    assert answer.code == 1
    assert (
        f"{where}: nothing reads this key; does its yaml lack the first line `# @package _global_`?" in answer.message
    )


@pytest.mark.parametrize(
    "text",
    [
        "base: 0.01\noptimizer: {lr: '${base}'}",
        "sizes: {small: [8], large: [16]}\nchosen: small\nstudent: {net: {widths: '${sizes.${chosen}}'}}",
        "own: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}\nstages: {control: {optimizer: '${own}'}}",
        "wide: 12\nstudent: {net: {widths: ['${oc.select:wide,3}']}}",
        "stages: {teacher: {loss: {terms: {hard: {weight: 0.5}}}}}",
        "loss: {here: 3, terms: {soft: {weight: '${...here}'}}}",
    ],
)
def test_a_key_that_an_interpolation_names_is_read(compose, tmp_path, text):
    conf = shutil.copytree(conf_dir(), tmp_path / "conf")
    (conf / "experiment" / "one.yaml").write_text(f"# @package _global_\n{text}\n")
    check(compose("experiment=one", folder=str(conf)))


def test_a_key_that_only_the_run_s_folder_names_is_read(main, tmp_path):
    answer = main("distill", *TINY, "loss.alpha=7", "+name=mine", "hydra.run.dir=runs/${name}")
    assert "loss.alpha must be a number" in answer.message
    assert (tmp_path / "runs" / "mine").is_dir()


def test_evaluate_refuses_a_misspelt_key_too(main):
    answer = main("evaluate", "checkpoint=x", "+teachr=y", "hydra.run.dir=run")
    assert "teachr: nothing reads this key; 'teachr': did you mean 'teacher'?" in answer.message


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_gradients_are_clipped_in_mixed_precision_whatever_the_optimizer(compose, precision, optimizer):
    """One real step with Lightning's plugin, whose scaler a Trainer on a CPU would not make."""
    cfg = compose(f"optimizer={optimizer}", f"trainer.precision={precision}", "+trainer.gradient_clip_val=1e-3",
                  "optimizer.lr=1.0", *TINY, "~callbacks.progress", "logger=none")  # fmt: skip
    cfg = factory.stage_config(cfg, "control")
    data = factory.data(cfg)
    learner = factory.supervised_module(cfg, "control", data, None)
    trainer = L.Trainer(
        max_steps=1, plugins=[MixedPrecision(precision, "cpu")], gradient_clip_val=1e-3,
        accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, datamodule=data)
    squares = [p.grad.square().sum() for p in learner.parameters() if p.grad is not None]
    assert trainer.global_step == 1
    assert 0 < float(sum(squares)) ** 0.5 <= 1.01e-3


def test_an_optimizer_stays_fused_where_nothing_forbids_it(compose):
    for overrides, fused in (
        (["trainer.precision=bf16-mixed"], True),
        (["+trainer.gradient_clip_val=1"], True),
        (["trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1"], False),
    ):
        stage = factory.stage_config(compose(*TINY, *overrides), "student")
        assert (
            factory.distillation_module(stage, factory.data(stage), factory.sources(stage), None).optimizer.keywords[
                "fused"
            ]
            is fused
        )


def test_the_example_of_a_legal_addition_runs(main, tmp_path):
    added = ["+trainer.gradient_clip_val=1", "+optimizer.betas=[.9,.99]", "+stages.teacher.optimizer.weight_decay=0.1"]
    answer = main("distill", *TINY, *added, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    recipe = json.loads((tmp_path / "run" / "artifacts.json").read_text())
    assert recipe["teacher"]["recipe"]["optimizer"] == recipe["control"]["recipe"]["optimizer"] | {"weight_decay": 0.1}
    assert recipe["teacher"]["recipe"]["optimizer"]["betas"] == [0.9, 0.99]


def test_a_refused_config_does_not_take_the_folder(main, tmp_path):
    assert main("distill", *TINY, "loss.alpha=7", "hydra.run.dir=run").code == 1
    assert main("distill", *TINY, "loss.alpha=.7", "hydra.run.dir=run").code == 0
    answer = main("distill", *TINY, "loss.alpha=.6", "hydra.run.dir=run")
    assert answer.code == 1
    assert "holds a run with another config (loss.alpha: 0.7 there, 0.6 here; " in answer.message
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "COMPLETE"


def test_an_option_of_a_user_s_own_group_is_no_lost_key(main, tmp_path):
    group = tmp_path / "mine" / "extra"
    group.mkdir(parents=True)
    (group / "hot.yaml").write_text("# @package _global_\nloss: {temperature: 9}\n")
    answer = main("distill", "--config-dir", "mine", *TINY, "+extra=hot", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    assert "temperature: 9" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_target_that_takes_anything_is_left_alone(compose):
    check(compose("+callbacks.mine={_target_: unittest.mock.Mock, anything: 1}"))


def test_the_rest_of_a_class_s_arguments_is_its_parent_s(compose):
    with pytest.raises(TutelageError, match="takes no 'sead'; did you mean 'seed'"):
        check(compose("+data.sead=1"))


def test_a_negative_weight_is_told(compose, caplog):
    check(compose("loss.terms.soft.weight=-1"))
    assert "loss.terms.soft.weight=-1 is negative: training increases this loss" in caplog.text


def test_what_the_callbacks_would_refuse_in_training_is_refused_before(compose):
    with pytest.raises(TutelageError, match=r"callbacks\.prune: an average of weights .* does not keep zeros"):
        check(compose("prune=magnitude", "callbacks=ema"))
