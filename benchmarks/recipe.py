"""What mixing and the moving average add to a training step of a ResNet-18.

    OMP_NUM_THREADS=1 python benchmarks/recipe.py [--rounds 7] [--batch 64] --data <folder with FashionMNIST/raw>

The student is ``model=resnet18`` on Fashion-MNIST (1×28×28, in memory), shifted and flipped. In each round are
measured, one after the other: making a batch without and with ``data.mix`` (whose partners are augmented, too), a step
by hand (forward, backward, optimizer), and one update of ``callbacks=ema``. CPU time of this process, so that other
work on the machine counts little; printed are medians over the rounds, and the median and range of the rounds' shares
(mixed − plain + average) / (plain + step).
"""

import argparse
import statistics
from typing import Any

from clock import cpu_seconds
from hydra import compose, initialize_config_dir

from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir
from tutelage.sources.ema_teacher import EMATeacher

MIX = "data.mix={_target_: tutelage.data.mix.Mix, mixup: 0.2, cutmix: 1.0}"
AUGMENT = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 4}, {_target_: tutelage.data.augment.Flip}]"


def stage(root: str, batch: int, *more: str) -> Any:
    """Returns the config of the control, a ResNet-18."""
    fixed = ("data=fashion_mnist", f"data.root={root}", f"data.batch_size={batch}", AUGMENT, "model@student=resnet18",
             "optimizer=sgd", "trainer.accelerator=cpu")  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return factory.stage_config(compose("distill", overrides=[*fixed, *more]), "control")


def main() -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--data", required=True)
    given = arguments.parse_args()
    resolvers.register()
    plain, mixed = stage(given.data, given.batch), stage(given.data, given.batch, MIX)
    data, data_mixed = factory.data(plain), factory.data(mixed)
    batches, batches_mixed = (iter(one.unaugmented_train_loader(0)) for one in (data, data_mixed))
    module = factory.supervised_module(mixed, "control", data_mixed, None).train()
    optimizer = module.optimizer(module.parameter_groups())
    average = EMATeacher(0.9999)
    average.attach((), {"student": module.student})
    batch = next(batches_mixed)

    def step() -> None:
        loss, _ = module.objective(module.signals(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    works = {
        "batch": (lambda: next(batches), 10),
        "mixed": (lambda: next(batches_mixed), 10),
        "step": (step, 1),
        "average": (average.after_step, 5),
    }
    rounds = [{name: cpu_seconds(*work) for name, work in works.items()} for _ in range(given.rounds)]
    for name in works:
        print(f"{name:8} {1000 * statistics.median(one[name] for one in rounds):9.2f} ms")
    for name, added in {
        "mixing": lambda one: one["mixed"] - one["batch"],
        "average": lambda one: one["average"],
        "both": lambda one: one["mixed"] - one["batch"] + one["average"],
    }.items():
        shares = sorted(100 * added(one) / (one["batch"] + one["step"]) for one in rounds)
        print(f"{name:8} {statistics.median(shares):9.2f} % of a step ({shares[0]:.2f} to {shares[-1]:.2f})")


if __name__ == "__main__":
    main()
