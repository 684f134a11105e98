"""Steps of fine-tuning and distilling texts: Tutelage against a plain loop with the same networks.

    python benchmarks/text_step.py [--cases …] [--rounds 5] [--data ../shared/data]

The texts are the 7,568 sentences of movie reviews, by words, in batches of similar length (windows of 32 batches) that
are padded to their longest. The plain loop has the same networks, ids and optimizer and forms its batches likewise, by
lists and ``pad_sequence``; nothing else: no bar, no log, no file. Tutelage's has the progress bar, TensorBoard and
checkpoints. Teachers are live.

Interleaved, one after the other in each round; printed are medians over the rounds in milliseconds a step, and the
median of the rounds' ratios, by wall clock and by CPU time of the process (the second is steadier on a shared machine).
"""

import argparse
import contextlib
import io
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["FORCE_COLOR"] = "1"  # draw the bar although nobody watches

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from plain import timed
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import tutelage.cli.main  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage.config import factory, resolvers
from tutelage.config.paths import conf_dir
from tutelage.data.module import Data
from tutelage.models.tapped import Tapped
from tutelage.pipeline import fit
from tutelage.seeding import seeded

BATCH, WINDOW, T = 32, 32, 2.0
_BERT = "model_type: bert, vocab_size: '${data.vocab_size}', hidden_size: 384, num_hidden_layers: 6, "
_BERT = f"{{{_BERT} num_attention_heads: 12, intermediate_size: 1536}}"
LARGE = ["model@teacher=hf", f"teacher.config={_BERT}"]  # as large as MiniLM-L6
SMALL = ["model@teacher=text_transformer", "teacher.net.layers=4"]
# name → stage, overrides, steps
CASES = {
    "fine-tune BERT 6 × 384": ("teacher", [*LARGE, "model@student=text_cnn"], 8),
    "fine-tune transformer 4 × 128": ("teacher", [*SMALL, "model@student=text_cnn"], 150),
    "BERT 6 × 384 → transformer 2 × 128": ("student", [*LARGE, "model@student=text_transformer"], 16),
    "transformer 4 × 128 → 2 × 128": ("student", [*SMALL, "model@student=text_transformer"], 150),
    "transformer 4 × 128 → CNN": ("student", [*SMALL, "model@student=text_cnn"], 150),
}


def config(overrides: list[str], root: str, steps: int) -> DictConfig:
    """Returns what ``tutelage distill`` would have."""
    fixed = [
        "data=movie_reviews", f"data.root={root}", f"data.batch_size={BATCH}", "data.cache=null",
        f"+trainer.limit_train_batches={steps}", "+trainer.limit_val_batches=0", "trainer.max_epochs=1",
        "trainer.accelerator=cpu", "optimizer=adamw", "optimizer.lr=1e-4", "loss=soft_target", "loss.alpha=1",
        f"loss.temperature={T}",
    ]  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("distill", overrides=[*fixed, *overrides])


def plain_batches(texts: list[list[int]], labels: list[int], pad: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (ids, mask, labels): shuffled, sorted by length within windows, the batches of each window shuffled."""
    order = torch.randperm(len(texts)).tolist()
    for start in range(0, len(order), BATCH * WINDOW):
        rows = sorted(order[start : start + BATCH * WINDOW], key=lambda row: len(texts[row]))
        batches = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
        for k in torch.randperm(len(batches)).tolist():
            some = [torch.tensor(texts[row]) for row in batches[k]]
            ids = pad_sequence(some, batch_first=True, padding_value=pad)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(one) for one in some])[:, None]
            yield ids, mask, torch.tensor([labels[row] for row in batches[k]])


def logits(net: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns the logits of a network of transformers or of Tutelage, called without taps."""
    if hasattr(net, "config"):
        found = net(input_ids=ids, attention_mask=mask)
        return found if isinstance(found, Tensor) else found.logits
    return net(ids, mask)


def plain(stage: DictConfig, name: str, data: Data, steps: int) -> Callable[[], None]:
    """Returns a plain loop over the first ``steps`` batches of an epoch."""
    tokens, keys = data.splits["train"].tokens, data.splits["train"].keys.tolist()
    texts = [tokens.ids[tokens.offsets[k] : tokens.offsets[k + 1]].tolist() for k in keys]
    labels = data.splits["train"].labels.tolist()
    teacher = None if name == "teacher" else _net(stage.teacher, "teacher").eval()
    net = _net(stage.network, name).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def loop() -> None:
        batches = plain_batches(texts, labels, data.tokenizer.pad)  # type: ignore[attr-defined]
        for _, (ids, mask, label) in zip(range(steps), batches, strict=False):
            answer = logits(net, ids, mask)
            if teacher is None:
                loss = F.cross_entropy(answer, label)
            else:
                with torch.no_grad():
                    target = logits(teacher, ids, mask)
                soft, target = F.log_softmax(answer / T, -1), F.softmax(target / T, -1)
                loss = F.kl_div(soft, target, reduction="batchmean") * T * T
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return loop


def _net(node: DictConfig, name: str) -> torch.nn.Module:
    made = factory.network(node, 0, name)
    assert isinstance(made, Tapped)
    return made.net


def ours(stage: DictConfig, name: str, data: Data) -> Callable[[], None]:
    """Builds what a job builds for a stage; what is returned trains."""
    folder = Path(tempfile.mkdtemp(prefix="tutelage-benchmark-"))
    if name == "teacher":
        module = factory.supervised_module(stage, name, data, None)
    else:
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = factory.trainer(stage, name, folder, folder / "tensorboard", len(data.train_dataloader()))

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), fit.threads(module, data):
            trainer.fit(module, datamodule=data)

    return run


def measure(case: str, root: str, rounds: int) -> None:
    name, overrides, steps = CASES[case]
    stage = factory.stage_config(config(overrides, root, steps), name)
    data = factory.data(stage)
    found: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    for _ in range(rounds + 1):
        with seeded("benchmark"):
            found["plain"].append(timed(plain(stage, name, data, steps)))
            found["ours"].append(timed(ours(stage, name, data)))
    for clock, i in (("wall", 0), ("CPU", 1)):
        a, b = ([1000 * seconds[i] / steps for seconds in found[which][1:]] for which in ("plain", "ours"))
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        print(
            f"| {case} | {clock} | {statistics.median(a):.1f} | {statistics.median(b):.1f} | {ratio:.2f} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", default=os.environ.get("TUTELAGE_DATA", "../shared/data"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    resolvers.register()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs")
    print("| case | clock | plain loop, ms a step | tutelage, ms a step | ratio |\n|---|---|---|---|---|")
    for case in arguments.cases:
        measure(case, arguments.data, arguments.rounds)


if __name__ == "__main__":
    main()
