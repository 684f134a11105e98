"""A student cut from its teacher's layers: ours and those of transformers."""

import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.models.cnn import CNN
from tutelage.models.first_layers import FirstLayers
from tutelage.models.text_transformer import TextTransformer


def bert(layers):
    pytest.importorskip("transformers")
    from tutelage.models import mean_pooled

    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 16}
    config = {"model_type": "bert", "vocab_size": 50, **small, "num_hidden_layers": layers}
    return mean_pooled.tapped(config=config, num_classes=3).net


def ours(layers, **more):
    return TextTransformer(50, 3, **{"width": 16, "heads": 2, "layers": layers, **more})


PATHS = {ours: "layers", bert: "encoder.encoder.layer"}


@pytest.mark.parametrize("make", PATHS, ids=["ours", "hf"])
def test_named_layers_embeddings_and_head_are_the_teachers(make):
    teacher, student = make(4), make(2)
    FirstLayers.of({"layers": [3, 1], "from": "teacher"}).copy(student, teacher)
    known, path = teacher.state_dict(), PATHS[make]
    for name, tensor in student.state_dict().items():
        theirs = name.replace(f"{path}.0.", f"{path}.3.") if f"{path}.0." in name else name
        assert torch.equal(tensor, known[theirs]), name
        assert tensor.data_ptr() != known[theirs].data_ptr()


def test_all_weights_are_the_teachers_in_a_network_without_a_list_of_layers():
    teacher, student = CNN([1, 8, 8], 3), CNN([1, 8, 8], 3)
    FirstLayers.of({"layers": "all"}).copy(student, teacher)
    known = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, known[name]), name
        assert tensor.data_ptr() != known[name].data_ptr()
    with pytest.raises(TutelageError, match=r"is \[16, 8, 3, 3\], .* of sources.peer is \[12, 8, 3, 3\]"):
        FirstLayers.of({"layers": "all", "from": "peer"}).copy(student, CNN([1, 8, 8], 3, widths=(8, 12)))


@pytest.mark.parametrize(
    ("init", "student", "said"),
    [
        ({"layers": [0, 4]}, lambda: ours(2), r"sources.teacher has 4 layers at 'layers'"),
        ({"layers": [0]}, lambda: ours(2), r"names 1 layers; the student has 2 \(layers\)"),
        ({"layers": [0, 1]}, lambda: ours(2, width=8), r"is \[50, 8\], embeddings.tokens.weight of sources.teacher is"),
        ({"layers": [0, 1]}, lambda: ours(2, norm="pre"), "norm.weight starts from norm.weight, which"),
        ({"layers": [0], "frm": "x"}, lambda: ours(1), "takes layers and from; found 'frm'"),
        ({"layers": [-1]}, lambda: ours(1), "indices of the teacher's layers"),
        ({"from": "teacher"}, lambda: ours(1), "indices of the teacher's layers"),
    ],
)
def test_what_does_not_match_is_one_sentence(init, student, said):
    with pytest.raises(TutelageError, match=said):
        FirstLayers.of(init).copy(student(), ours(4))
