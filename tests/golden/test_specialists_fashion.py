"""A short version of ``experiment=specialists_fashion`` on scikit-learn's digits, against the figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

import runpy
from pathlib import Path

import on_file
import pytest
import small_mnist
from runs import artifacts

PATH = Path(__file__).parent / "specialists_fashion.json"
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "specialists_fashion.py"
SHORT = (
    "data.dataset=MNIST", "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=2", "logger=none",
    "student.net.widths=[16]", "teacher.net.widths=[16]", "callbacks.progress=null",
    "stages.specialist.trainer.max_epochs=2",
)  # fmt: skip
TEACHERS = ("specialists", "frozen")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request):
    digits, found, documents = small_mnist.write(tmp_path), {}, {}
    for sources in TEACHERS:
        run = tmp_path / sources / "job"
        documents[sources] = small_mnist.distilled(
            main, digits, run, "specialists_fashion", f"sources={sources}", *SHORT
        )
        found[sources] = on_file.losses(documents[sources])
    made = tmp_path / "outputs" / "artifacts"
    assert len(artifacts(made, "teacher")) == len(artifacts(made, "control")) == 1  # of both
    assert found["specialists"]["control"] == found["frozen"]["control"]
    assert found["specialists"]["teacher"] != found["frozen"]["teacher"]
    _tables(tmp_path, documents)
    on_file.compare(request, PATH, found)


def _tables(folder, documents):
    """Of the page, as its script makes them."""
    script = runpy.run_path(str(SCRIPT))
    runs = {sources: script["read"](folder / sources) for sources in TEACHERS}
    said = {
        (role, sources): documents[sources][role]["last"]["test"]["errors"]
        for role in on_file.ROLES
        for sources in TEACHERS
    }
    rows = [line.split(" | ") for line in script["networks"](runs, "test").splitlines()[2:]]
    teachers = [said["teacher", "frozen"], said["teacher", "specialists"], said["teacher", "frozen"]]  # twice as one
    students = [said["control", "frozen"], said["student", "specialists"], said["student", "frozen"]]
    assert [row[1] for row in rows] == [f"{count:,.1f}" for count in (*teachers, *students)]
    groups = script["groups"](runs["specialists"], script["class_names"](folder / "specialists"), "test")
    assert len(groups.splitlines()) == 2 + len(documents["specialists"]["specialists"])
