"""The cache of a teacher's signals, from the command line: the same bits as a live teacher."""

import json

import pytest
from command import PAIR, SPLITS, TINY
from runs import artifacts, figures, weights

from tutelage.checkpoints.weights import digest, read_state

pytestmark = pytest.mark.slow

QUICK = ("logger=none", "callbacks.progress=null")
SHIFT = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"
AUGMENTED = (*PAIR, *SPLITS, "trainer.max_epochs=3", SHIFT, "data.views=2")
CASES = {
    "logits": TINY,
    "augmented": AUGMENTED,
    "maps and parameters": (
        "model@teacher=resnet14", "model@student=resnet8", "loss=[soft_target,ofd,srrl]", "trainer.max_epochs=1",
    ),
}  # fmt: skip


def store(folder, kind):
    return artifacts(folder / "outputs" / "artifacts", kind)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.long
def test_cached_is_live_to_the_bit(main, tmp_path, options):
    base = (*options, *QUICK)
    assert main("distill", *base, "sources.teacher.cache=false", "hydra.run.dir=live").code == 0
    assert not store(tmp_path, "signals")
    answer = main("distill", *base, "sources=cached", "hydra.run.dir=cached")
    assert answer.code == 0, answer.message
    assert weights(tmp_path / "live") == weights(tmp_path / "cached")
    assert figures(tmp_path / "live") == figures(tmp_path / "cached")
    [folder] = store(tmp_path, "signals")
    assert json.loads((folder / "store.json").read_text())["views"] == (2 if "data.views=2" in options else 1)


@pytest.mark.long
def test_two_ranks_read_one_cache_of_two_views(cli, tmp_path):
    base = [*AUGMENTED, *QUICK, "trainer=ddp", "trainer.accelerator=cpu"]
    cli("distill", *base, "hydra.run.dir=live")
    assert not store(tmp_path, "signals")  # augmented images are cached where that is asked for
    cli("distill", *base, "sources=cached", "hydra.run.dir=cached")
    assert len(store(tmp_path, "signals")) == 1
    assert weights(tmp_path / "live") == weights(tmp_path / "cached")


@pytest.mark.long
def test_a_sweep_asks_its_teacher_once_and_cache_writes_it_before(main, tmp_path):
    answer = main("cache", *TINY, *QUICK)
    assert answer.code == 0, answer.message
    [folder] = store(tmp_path, "signals")
    assert answer.out.split()[-1] == str(folder.relative_to(tmp_path))
    before = (folder / "store.json").stat().st_mtime_ns
    sweep = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir='${hydra.job.num}'")
    assert main("distill", "-m", *TINY, *QUICK, "loss.temperature=1,4", *sweep).code == 0
    assert store(tmp_path, "signals") == [folder]
    assert (folder / "store.json").stat().st_mtime_ns == before
    assert main("distill", *TINY, *QUICK, "stages.teacher.seed=1", "hydra.run.dir=other").code == 0
    assert len(store(tmp_path, "signals")) == 2  # another teacher says something else


@pytest.mark.long
def test_a_folder_by_name_is_used_or_refused(main, tmp_path):
    assert main("distill", *TINY, *QUICK, "hydra.run.dir=run").code == 0
    [folder] = store(tmp_path, "signals")
    named = ("sources=cached", f"sources.teacher.folder={folder}")
    assert main("distill", *TINY, *QUICK, *named, "hydra.run.dir=named").code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "named")
    alone = main("distill", *TINY, *QUICK, *named, "sources.teacher.source=null", "hydra.run.dir=alone")
    assert alone.code == 0, alone.message
    student = "checkpoints/last.safetensors"
    assert digest(read_state(tmp_path / "alone" / student)) == digest(read_state(tmp_path / "run" / student))
    for change, said in (
        ("stages.teacher.seed=1", "is stale: weights changed since it was written"),
        ("data.split_seed=1", "lacks training example"),
        ("data.mean=[0.5]", "is stale: mean, weights changed since it was written"),
    ):
        answer = main("distill", *TINY, *QUICK, *named, change, "hydra.run.dir=stale")
        assert answer.code == 1
        assert said in answer.message
    answer = main("distill", *TINY, *QUICK, "sources=cached", SHIFT, "paths.artifacts=none")
    assert answer.code == 1
    assert "a cache of augmented examples needs data.views=K" in answer.message
    assert not artifacts(tmp_path / "none", "teacher")  # said before anything is trained
    path = folder / "logits.bin"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    answer = main("distill", *TINY, *QUICK, *named, "hydra.run.dir=damaged")
    assert answer.code == 1
    assert "logits.bin: damaged in the rows from 0 of view 0" in answer.message
    assert main("distill", *TINY, *QUICK, "hydra.run.dir=mended").code == 0  # found by content, it is made anew
    assert weights(tmp_path / "mended") == weights(tmp_path / "run")
    assert folder.with_name(f"{folder.name}.damaged-1").is_dir()
