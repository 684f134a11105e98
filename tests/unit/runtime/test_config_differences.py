import pytest

from tutelage.runtime.config_differences import differences


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("{seed: 0, loss: {alpha: 0.7}}", {"seed": 1, "loss": {"alpha": 0.6}}, "seed: 0 there, 1 here; loss.alpha:"),
        ("{a: 1}", {"a": 1, "b": {"c": 2}}, "b: nothing there, {'c': 2} here"),
        ("{a: 1, b: 2}", {"a": 1}, "b: 2 there, nothing here"),
        ("{a: [1, 2]}", {"a": [1, 3]}, "a: [1, 2] there, [1, 3] here"),
        ("{a: {b: 1}}", {"a": None}, "a: {'b': 1} there, None here"),
        ("{paths: {outputs: x}, callbacks: {recovery: {keep: 1}}}",
         {"paths": {"outputs": "y"}, "callbacks": {"recovery": {"keep": 2}}}, "see its config.yaml"),
        ("[1, 2]", {"a": 1}, "config.yaml there can't be read"),
        ("{a: [", {"a": 1}, "config.yaml there can't be read"),
    ],
)  # fmt: skip
def test_keys_that_differ_are_named_with_both_values(tmp_path, there, here, said):
    (tmp_path / "config.yaml").write_text(there)
    assert said in differences(tmp_path / "config.yaml", here)


def test_many_are_cut(tmp_path):
    (tmp_path / "config.yaml").write_text("{a: 1}")
    said = differences(tmp_path / "config.yaml", {f"k{i}": i for i in range(20)} | {"a": 1})
    assert said.count("there") == 8
    assert said.endswith("and 12 more keys")
    assert "can't be read" in differences(tmp_path / "nothing.yaml", {})
