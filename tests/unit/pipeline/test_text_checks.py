"""Networks that can't read all token ids or lengths are refused before training, as are other tokenizers."""

import json

import pytest
import torch
from texts import reviews, tsv
from torch import nn

from tutelage.checkpoints.weights import save_network
from tutelage.config import factory
from tutelage.config.plan import plan_job
from tutelage.data.text.files import TextFiles
from tutelage.errors import TutelageError
from tutelage.models import hugging_face
from tutelage.models.bilstm import BiLSTM
from tutelage.models.tapped import Tapped, tapped
from tutelage.models.text_cnn import TextCNN
from tutelage.models.text_transformer import TextTransformer
from tutelage.models.word_vectors import Vectors
from tutelage.pipeline.teacher_checks import check_file
from tutelage.pipeline.text_checks import check_ids
from tutelage.pipeline.try_out import try_out

pytest.importorskip("tokenizers")


@pytest.fixture
def data(tmp_path):
    path = tsv(tmp_path / "a.tsv", reviews(60))
    return TextFiles(train=path, batch_size=8, seed=0, max_length=40, val_size=10, test_size=10)


class Positions(nn.Module):
    """Has as many positions as it is told, as transformers do."""

    def __init__(self, vocab_size, length):
        super().__init__()
        self.words, self.places = nn.Embedding(vocab_size, 4), nn.Embedding(length, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head((self.words(ids) + self.places(torch.arange(ids.shape[1]))).mean(1))


def test_networks_for_all_ids_and_lengths_pass(data):
    check_ids("student", Tapped(TextCNN(data.vocab_size, 2), reads={"input": "input", "mask": "mask?"}), data)
    check_ids("student", Tapped(Positions(data.vocab_size, 40)), data)


def bert(size, classes):
    pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = {"model_type": "bert", "vocab_size": size, "max_position_embeddings": 40, **small}
    return hugging_face.tapped(config=config, num_classes=classes).eval()


@pytest.mark.parametrize("kind", [TextCNN, lambda size, classes: Positions(size, 40), bert])
def test_a_vocabulary_beyond_the_networks_is_one_sentence(data, kind):
    with pytest.raises(TutelageError, match=rf"the teacher has fewer embeddings than .*, {data.vocab_size} \(data\."):
        check_ids("teacher", tapped(kind(data.vocab_size - 1, 2)), data)


def roberta(size, positions):
    """Its padding has no position, so that a text of the padding's id alone fits every length."""
    pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = {"model_type": "roberta", "vocab_size": size, "max_position_embeddings": positions, "pad_token_id": 0}
    return hugging_face.tapped(config={**config, **small}, num_classes=2).eval()


def test_too_few_positions_are_not_taken_for_too_few_embeddings(data):
    check_ids("teacher", roberta(data.vocab_size, 41), data)
    with pytest.raises(TutelageError, match=r"the teacher can't read 40 tokens \(data\.max_length, of a corpus"):
        check_ids("teacher", roberta(data.vocab_size, 40), data)


def test_one_kind_of_segment_for_pairs_is_one_sentence(tmp_path):
    path = tsv(tmp_path / "a.tsv", [(f"good {i}", f"bad {i}", i % 2) for i in range(40)], ("text", "b", "label"))
    data = TextFiles(train=path, pair="b", batch_size=8, seed=0, max_length=8)
    reads = {"input": "input", "mask": "mask?", "segment": "segment?"}
    for segments in (2, 1):
        net = Tapped(TextTransformer(data.vocab_size, 2, 8, 1, 2, length=8, segments=segments), reads=reads).eval()
        if segments == 2:
            check_ids("student", net, data)
            continue
        with pytest.raises(
            TutelageError, match=r"the student has one kind of segment, .* raise student\.net\.segments"
        ):
            check_ids("student", net, data)


def saved(data, folder, moved=0):
    """A BERT in ``folder`` beside the data's tokenizer, whose last tokens may have other ids."""
    pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = {"model_type": "bert", "vocab_size": data.vocab_size + 1, "max_position_embeddings": 40, **small}
    hugging_face.tapped(config=config, num_classes=2).net.save_pretrained(folder)
    content = json.loads(data.tokenizer.inner.to_str())
    last = data.vocab_size - 1
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: id + moved * (id == last) for token, id in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return next(token for token, id in vocabulary.items() if id == last)


def test_weights_for_another_tokenizer_are_refused(data, tmp_path):
    saved(data, tmp_path)
    check_ids("student", hugging_face.tapped(pretrained=str(tmp_path), num_classes=2).eval(), data)
    token = saved(data, tmp_path, moved=1)
    said = rf"the student's weights are for the ids of .*tokenizer\.json \(pretrained\), in which '{token}' is"
    with pytest.raises(TutelageError, match=said):
        check_ids("student", hugging_face.tapped(pretrained=str(tmp_path), num_classes=2).eval(), data)


@pytest.mark.parametrize("kind", [TextCNN, BiLSTM])
def test_vectors_of_another_tokenizer_are_refused(data, tmp_path, kind):
    token = saved(data, tmp_path, moved=1)
    (tmp_path / "v.txt").write_text(f"{token} 1 2\nfilm 3 4\n")
    vectors = Vectors(str(tmp_path / "v.txt"), str(tmp_path / "tokenizer.json"))
    net = tapped(kind(data.vocab_size + 1, 2, vectors=vectors))
    with pytest.raises(TutelageError, match=rf"\(vectors\.tokens\), in which '{token}' is {data.vocab_size}; that of"):
        check_ids("student", net, data)


def test_a_student_that_ignores_its_own_tokenizer_is_refused(data, tmp_path):
    both = TextFiles(
        train=tmp_path / "a.tsv", batch_size=8, seed=0, val_size=10, test_size=10, student_tokenizer="words"
    )
    reading = Tapped(TextCNN(both.vocab_size, 2), reads={"input": "student_input", "mask": "student_mask?"})
    check_ids("student", reading, both)
    with pytest.raises(TutelageError, match=r"data\.student_tokenizer: the student reads `input`"):
        check_ids("student", tapped(TextCNN(both.vocab_size, 2)), both)
    check_ids("teacher", tapped(TextCNN(both.vocab_size, 2)), both)


def test_a_length_beyond_the_networks_is_one_sentence(data):
    with pytest.raises(TutelageError, match=r"the student can't read 40 tokens \(data.max_length, "):
        check_ids("student", Tapped(Positions(data.vocab_size, 39)), data)


def test_a_network_that_reads_no_text_at_all_is_not_blamed_on_lengths(data):
    class Broken(nn.Module):
        def forward(self, ids):
            raise ValueError("never")

    check_ids("student", Tapped(Broken()), data)


def test_a_vocabulary_beyond_the_networks_is_found_before_anything_else_is_asked_of_it(compose, tmp_path):
    pytest.importorskip("transformers")
    small = "hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 8"
    cfg = compose("data=text", f"data.train={tsv(tmp_path / 'a.tsv', reviews(60))}", "model@student=text_cnn",
                  "model@teacher=hf", f"teacher.config={{model_type: bert, vocab_size: 12, {small}}}",
                  "data.batch_size=8")  # fmt: skip
    plan = plan_job(cfg)
    with pytest.raises(TutelageError, match=r"the teacher has fewer embeddings than .* ids, 26 \(data"):
        try_out(plan, factory.data(plan.student))


def test_a_teacher_of_another_tokenizer_is_refused(data, tmp_path):
    path = tmp_path / "t.safetensors"
    for digest, good in ((data.tokenizer_digest, True), ("0" * 64, False), (None, True)):
        about = {"network": {}, "data": {"tokenizer": "words", "tokenizer_digest": digest}}
        save_network(nn.Linear(1, 1), path, about)
        if good:
            check_file(str(path), {}, data, {})
        else:
            with pytest.raises(TutelageError, match=r"another tokenizer \(words, digest 000000000000\) than data\."):
                check_file(str(path), {}, data, {})
