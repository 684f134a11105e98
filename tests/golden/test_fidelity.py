"""A short version of ``experiment=fidelity`` on scikit-learn's digits as MNIST files, against the figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

import runpy
from pathlib import Path

import on_file
import pytest
import small_mnist
from runs import artifacts

PATH = Path(__file__).parent / "fidelity.json"
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "fidelity.py"
SHORT = (
    "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=4", "stages.teacher.trainer.max_epochs=2",
    "logger=none",
)  # fmt: skip
SHIFT = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"
CASES = {"smaller_views": ("student.net.widths=[16]", SHIFT), "self": ()}


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.long
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request):
    digits = small_mnist.write(tmp_path)
    found = {}
    for name, more in CASES.items():
        document = small_mnist.distilled(main, digits, tmp_path / "sweep" / name, "fidelity", *SHORT, *more)
        found[name] = {
            f"{role} {split}": {key: document[role]["last"][split][key] for key in ("agreement", "kl_teacher", "nll")}
            for role in ("control", "student")
            for split in ("train", "test")
        }
        assert found[name]["student test"]["kl_teacher"] < found[name]["control test"]["kl_teacher"]
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1  # of both
    script = runpy.run_path(str(SCRIPT))
    lines = script["table"](script["read"]([tmp_path / "sweep"])).splitlines()[2:]
    for line, case in zip(lines[1::2], CASES, strict=True):
        kl = [found[case][f"student {split}"]["kl_teacher"] for split in ("train", "test")]
        assert line.endswith(f"| {kl[0]:.4f} | {kl[1]:.4f} |")
    assert script["figure"](script["read"]([tmp_path / "sweep"])).count("<circle") == 2 * len(CASES) + 2  # and the key
    on_file.compare(request, PATH, found, rel=5e-3)  # agreement moves by whole images
