"""``tutelage budget`` from its families to measured students, its file and its messages."""

import json
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import tutelage as tt
from tutelage.config.composed import choices
from tutelage.config.paths import conf_dir

pytestmark = pytest.mark.long
ONLY = ("families=[mlp,unet]", "threads=1")


def test_students_that_meet_the_targets_are_measured_listed_and_can_be_trained(main, tmp_path):
    answer = main("budget", "parameters=2000", "milliseconds=1e3", "batch_size=4", "each=null", *ONLY, "data=digits")
    assert answer.code == 0, answer.message
    [file] = tmp_path.glob("outputs/budget/*/*/budget.json")
    found = json.loads(file.read_text())
    sizes = {one["name"]: one["parameters"] for one in found["students"]}
    assert sizes == {"mlp widths=[16]": 1210, "mlp widths=[8]": 610}
    for one in found["students"]:
        assert one["bytes"] == 4 * one["parameters"]
        assert one["milliseconds"] > 0
    assert found["students"][0]["multiply_adds"] == 64 * 16 + 16 * 10
    assert list(found["left_out"]) == ["unet"]
    assert (found["batch_size"], found["threads"], found["tried"], found["met"]) == (4, 1, 11, 2)
    assert all(line in answer.out for line in (*found["commands"], str(file)))
    words = shlex.split(found["commands"][0])[3:]
    planned = tt.plan(*[word for word in words if not word.startswith("hydra.")], multirun=True)
    assert [job.refused for job in planned.jobs] == [""] * 6


def test_bad_input_is_one_sentence(main):
    cases = (
        ((), "a target is needed"),
        (("parameters=0",), "parameters must be a number > 0; found 0"),
        (("milliseconds=fast",), "milliseconds must be a number > 0; found 'fast'"),
        (("parameters=9", "batch_size=0"), "batch_size must be a whole number ≥ 1; found 0"),
        (("parameters=9", *ONLY), "none of 11 students meets parameters=9; the smallest is mlp widths=[8] with 610"),
        (("parameters=9", "families=unet", "data=digits"), "no student can take these data; unet: its logits are"),
        (("parameters=9", "dta=mnist"), "dta"),
        (("parameters=9", "families=[]", "+students.mine=3"), "leaves no student"),
        (
            ("parameters=9", "families=mine", "+students.mine='model@student=mlp student.net.width=8'"),
            "students.mine: ",
        ),
    )
    for words, message in cases:
        answer = main("budget", *words)
        assert answer.code == 1
        assert message in answer.message
        assert "Traceback" not in answer.message


def test_families_find_their_data(tmp_path):
    rows = [f"a{number} film {'good' if number % 2 else 'bad'}\t{number % 2}" for number in range(60)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]))
    own = {"families": ["mlp", "text_cnn"], "each": 1, "threads": 1, "bytes": 2e5}
    texts = tt.budget("data=text", f"data.train={tmp_path}/rows.tsv", f"paths.outputs={tmp_path}", **own)
    assert [one.family for one in texts.students] == ["text_cnn"]
    assert [*texts.left_out] == ["mlp"]
    numbers = tt.budget("data=diabetes", batch_size=7, **own)
    assert [one.family for one in numbers.students] == ["mlp"]
    assert numbers.batch_size == 7


def test_every_family_names_a_model_and_keys_that_are_there(compose):
    families = OmegaConf.load(Path(conf_dir()) / "budget.yaml").students
    for text in families.values():
        compose(*next(choices(shlex.split(text))))
