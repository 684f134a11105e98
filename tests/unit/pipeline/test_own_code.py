"""Mistakes in a network or loss of the user's own are said before the teacher is trained, with the line."""

import pytest
from command import TINY
from runs import status

from tutelage.errors import explain, in_own_code

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
    assert "faulty.py, line 17, in forward)" in answer.message or name != "Net"
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


CALLBACK = "+callbacks.mine={{_target_: faulty.Callback, hook: {hook}}}"


@pytest.mark.parametrize(
    "hook", ["setup", "on_train_batch_start", "on_validation_epoch_end", "on_train_end", "state_dict"]
)
def test_an_error_in_a_callback_s_hook_is_one_sentence_with_its_line(main, tmp_path, hook):
    answer = main("distill", *TINY, CALLBACK.format(hook=hook), "hydra.run.dir=run")
    _is_one_sentence(answer, tmp_path, "ZeroDivisionError: division by zero", "faulty.py, line 59, in fail)")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+logger.mine={_target_: faulty.Logger}", "KeyError: 'no such metric'"),
        ("+callbacks.mine={_target_: faulty.FailsAtOnce}", "callbacks.mine: ValueError: never made"),
        ("optimizer._target_=faulty.Steps", "IndexError: list index out of range"),
    ],
)
def test_an_error_in_a_logger_a_constructor_or_an_optimizer_is_too(main, tmp_path, override, said):
    without = ["~optimizer.fused"] if "Steps" in override else []
    answer = main("distill", *TINY, override, *without, "hydra.run.dir=run")
    _is_one_sentence(answer, tmp_path, said, "faulty.py, line ", "callbacks" not in said)


def _is_one_sentence(answer, tmp_path, said, line, with_file=True):
    assert answer.code == 1
    assert said in answer.message, answer.message
    assert "faulty.py" in answer.message
    assert line in answer.message
    assert "Traceback" not in answer.message
    assert "faulty.py" in status(tmp_path / "run")["why"]
    if with_file:
        assert f"({tmp_path}/run/traceback.txt has its traceback)" in answer.message
        assert "faulty.py" in (tmp_path / "run" / "traceback.txt").read_text()


def test_an_error_in_a_process_that_loads_data_has_its_line():
    """As torch raises it in the process that trains."""
    text = (
        "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "/usr/lib/python3/site-packages/torch/fetch.py", line 3, in fetch\n'
        '  File "/home/me/mine.py", line 12, in __getitem__\n    return self.rows[key]\n'
        "KeyError: 'seven'\n"
    )
    assert in_own_code(RuntimeError(text)) == "KeyError: 'seven' (/home/me/mine.py, line 12, in __getitem__)"
    assert explain(RuntimeError(text)) == in_own_code(RuntimeError(text))
    assert in_own_code(RuntimeError("of nobody")) is None
