"""Mistakes in a network or loss of the user's own are said before the teacher is trained, with the line."""

import pytest
from command import TINY

MLP = ("widths", "input_shape", "num_classes", "dropout", "input_dropout")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Net", r"the student can't take images [8, 1, 8, 8]: AttributeError: 'Net' object has no attribute 'layr' ("),
        ("NoWeights", "the student has no weights to train"),
    ],
)
def test_a_network(main, tmp_path, name, said):
    overrides = [one for one in TINY if not one.startswith("student.")]
    overrides += [f"~student.net.{argument}" for argument in MLP]
    answer = main("distill", *overrides, f"student.net._target_=faulty.{name}", "student.taps=null")
    assert answer.code == 1
    assert said in answer.message
    assert "faulty.py, line 14)" in answer.message or name != "Net"
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("OneEach", "OneEach must return a tensor of one number, such as a mean; found a tensor [8, 10]"),
        ("Number", "Number must return a tensor of one number, such as a mean; found float"),
        ("Nothing", "Nothing must return a tensor of one number, such as a mean; found NoneType"),
        ("WrongKey", "KeyError: 'x' ("),
        ("NoTeacher", "NoTeacher.forward() got an unexpected keyword argument 'teacher'"),
    ],
)
def test_a_loss(main, tmp_path, name, said):
    term = (
        f"+loss.terms.mine={{_target_: tutelage.objective.Term, loss: {{_target_: faulty.{name}}}, "
        "inputs: {student: student.logits}, targets: {teacher: teacher.logits}}"
    )
    answer = main("distill", *TINY, term)
    assert answer.code == 1
    assert said in answer.message
    assert "Traceback" not in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))
