"""Corpora: blocks of tokens whose labels are the next tokens, split by document."""

import json

import pytest
import torch
from corpora import sentence, write_answers, write_texts

from tutelage.data.text.corpus import Corpus
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

pytest.importorskip("tokenizers", reason="needs the text extra")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts") / "corpus")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return write_answers(tmp_path_factory.mktemp("answers") / "answers.jsonl")


def corpus(root, **more):
    given = {"block": 8, "seed": 0, "batch_size": 4, "max_vocab_size": 280, "val_size": 4, "test_size": 4, **more}
    return Corpus(root=root, **given)


def rows(data, split):
    found = data.splits[split]
    return found[0, torch.arange(len(found))]


def documents(data, split):
    """The text of every document of a split: labels in the order of its blocks, cut at end tokens."""
    batch, found = rows(data, split), [[]]
    for token in batch["label"][batch["mask"]].tolist():
        if token == data.end:
            found.append([])
        else:
            found[-1].append(token)
    assert not found.pop()
    return [data.tokenizer.text(tokens) for tokens in found]


def test_every_token_of_every_document_is_the_label_of_one_position(texts):
    data = corpus(texts)
    found = [text for split in ("train", "val", "test") for text in documents(data, split)]
    assert sorted(found) == sorted(file.read_text() for file in texts.rglob("*.txt"))
    assert [len(documents(data, split)) for split in ("train", "val", "test")] == [16, 4, 4]


def test_a_label_is_the_token_after_its_input(texts):
    data = corpus(texts)
    batch = rows(data, "train")
    assert batch["input"].shape == batch["label"].shape == batch["mask"].shape == (len(data.splits["train"]), 8)
    both = batch["mask"][:, 1:]
    assert torch.equal(batch["input"][:, 1:][both], batch["label"][:, :-1][both])
    assert torch.equal(batch["mask"], batch["label"] != NO_LABEL)
    assert (~batch["mask"]).any()
    assert not batch["input"][~batch["mask"]].any()
    firsts = batch["input"][:, 0] == data.end
    assert int(firsts.sum()) == 16  # a document begins a block of its own


def test_keys_and_splits_are_functions_of_the_split_seed_alone(texts):
    first, again, other = corpus(texts), corpus(texts, seed=3), corpus(texts, split_seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(first.splits[split].keys, again.splits[split].keys)
    assert first.fingerprint() == again.fingerprint() == other.fingerprint()
    assert not torch.equal(first.splits["val"].keys, other.splits["val"].keys)
    assert documents(first, "test") == documents(other, "test")
    keys = torch.cat([first.splits[split].keys for split in ("train", "val")])
    assert keys.sort().values.tolist() == list(range(len(keys)))


def test_the_fingerprint_follows_text_block_and_tokenizer(texts, tmp_path):
    changed = write_texts(tmp_path / "changed")
    (changed / "00.txt").write_text("another text")
    found = [corpus(texts), corpus(changed), corpus(texts, block=12), corpus(texts, max_vocab_size=270)]
    assert len({data.fingerprint() for data in found}) == 4


def test_a_bpe_is_trained_without_the_tests_texts_and_kept_by_content(texts, tmp_path):
    data = corpus(texts, cache=tmp_path / "cache")
    assert 258 < data.tokenizer.size <= 280
    assert data.num_classes == data.num_outputs == data.tokenizer.size
    data.setup()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")}
    assert len(files) == 3  # tokenizer, tokens of training and of test
    again = corpus(texts, cache=tmp_path / "cache")
    again.setup()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")} == files
    damaged = next(iter(files))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert corpus(texts, cache=tmp_path / "cache").fingerprint() == data.fingerprint() == corpus(texts).fingerprint()
    assert damaged.stat().st_mtime_ns != files[damaged]


def test_a_given_tokenizer_is_used(texts, tmp_path):
    made = corpus(texts)
    (tmp_path / "tokenizer.json").write_text(made.tokenizer.inner.to_str())
    for given in (tmp_path, tmp_path / "tokenizer.json"):
        assert corpus(texts, tokenizer=given).tokenizer.digest == made.tokenizer.digest
    with pytest.raises(TutelageError, match=r"data.end='</s>' is no token of .*tokenizer.json"):
        corpus(texts, tokenizer=tmp_path, end="</s>")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TutelageError, match="can't be read as a tokenizer"):
        corpus(texts, tokenizer=tmp_path)


def test_any_bytes_survive(tmp_path):
    for number, text in enumerate(["naïve “quotes” 漢字\n\ttab", "\x00 zero", "🙂 smile", "plain", "more"]):
        (tmp_path / f"{number}.txt").write_text(text)
    data = corpus(tmp_path, val_size=1, test_size=1, batch_size=1)
    found = [text for split in ("train", "val", "test") for text in documents(data, split)]
    assert sorted(found) == sorted(file.read_text() for file in tmp_path.glob("*.txt"))


def test_answers_are_the_labels_of_the_completion(answers):
    data = corpus(answers, block=40, max_vocab_size=300)
    batch = rows(data, "train")
    given = [json.loads(line) for line in answers.read_text().splitlines()]
    pairs = {(one["prompt"], one["completion"]) for one in given}
    assert not (batch["answer"] & ~batch["mask"]).any()
    for label, answer, mask in zip(batch["label"], batch["answer"], batch["mask"], strict=True):
        prompt, completion = label[mask & ~answer].tolist(), label[answer].tolist()
        assert completion[-1] == data.end
        assert (data.tokenizer.text(prompt), data.tokenizer.text(completion[:-1])) in pairs
    alone = rows(corpus(answers, block=40, max_vocab_size=300, labels="answer"), "train")
    assert torch.equal(alone["label"], batch["label"].where(batch["answer"], NO_LABEL))


def test_completions_are_cut_and_prompts_are_not(answers, caplog):
    whole = corpus(answers, block=60, max_vocab_size=300)
    longest = max(int(whole.splits[split].blocks.answer.max()) for split in ("train", "test"))
    data = corpus(answers, block=longest + 2, max_vocab_size=300)
    data.setup()
    assert f"tokens are beyond data.block={longest + 2} and are left out" in caplog.text
    assert bool(rows(data, "train")["answer"].any(1).all())
    with pytest.raises(
        TutelageError, match=r"answers.jsonl:\d+: its prompt has \d+ tokens, and blocks of data.block=4"
    ):
        corpus(answers, block=4).setup()


def test_fields_of_json_lines_have_any_names(tmp_path):
    path = write_answers(tmp_path / "a.jsonl", prompt="instruction", completion="response")
    data = corpus(path, block=40, fields={"prompt": "instruction", "completion": "response"})
    assert "answer" in rows(data, "val")
    lines = [json.dumps({"body": sentence(number, 6)}) for number in range(12)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    assert "answer" not in rows(corpus(tmp_path / "b.jsonl", fields={"text": "body"}), "val")


def test_documents_of_one_file_are_separated(tmp_path):
    (tmp_path / "all.txt").write_text("\n\n".join(sentence(number, 9) for number in range(12)))
    for separator in ("\n\n", r"\n\n"):  # the second as a command line has it
        assert len(documents(corpus(tmp_path / "all.txt", separator=separator), "train")) == 4
    with pytest.raises(TutelageError, match=r"data.root has 1 document, of which 2 are drawn .* set data.separator"):
        corpus(tmp_path / "all.txt")


def test_validation_and_test_may_have_files_of_their_own(texts, tmp_path):
    for name in ("val", "test"):
        (tmp_path / f"{name}.txt").write_text(f"only for {name}")
    data = corpus(texts, val_root=tmp_path / "val.txt", test_root=tmp_path / "test.txt")
    assert (documents(data, "val"), documents(data, "test")) == (["only for val"], ["only for test"])
    assert len(documents(data, "train")) == 24


def test_few_labels_hide_those_of_other_blocks(texts):
    data = corpus(texts, labelled=10)
    known = (rows(data, "train")["label"] >= 0).any(1)
    assert int(known.sum()) == 10
    assert bool(rows(data, "train")["mask"].any(1).all())


BAD = {
    "nowhere": ({"root": "/nowhere/at/all"}, r"data.root=/nowhere/at/all is neither a file nor a folder"),
    "pattern": ({"files": "*.md"}, r"has no file that matches data.files=\['\*.md'\]"),
    "block": ({"block": 1}, "data.block must be a whole number of at least 2; found 1"),
    "labels": ({"labels": "some"}, "data.labels must be all or answer; found 'some'"),
    "no prompts": ({"labels": "answer"}, "data.labels=answer needs documents with prompt and completion"),
    "vocabulary": ({"max_vocab_size": 200}, r"data.max_vocab_size must be above 257"),
    "classes": ({"num_classes": 5}, "data.num_classes=5: the tokenizer has 280 tokens"),
    "views": ({"views": 2}, "data.views must be null"),
    "shape": ({"input_shape": [9]}, r"data.input_shape must be \[8\], as data.block says; found \[9\]"),
    "encoding": ({"encoding": "utf-99"}, "data.encoding=utf-99: Python knows no such encoding"),
    "unlabelled": ({"unlabelled": ["more"]}, "data.unlabelled"),
    "tokenizer": ({"tokenizer": "/nowhere/t.json"}, "data.tokenizer: there is no file /nowhere/t.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(texts, name):
    given, said = BAD[name]
    with pytest.raises(TutelageError, match=said):
        corpus(given.pop("root", texts), **given).setup()


def test_a_field_that_is_text_and_prompt_is_refused_until_one_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(f'{{"prompt": "a b {i}", "completion": "c"}}' for i in range(40)))
    with pytest.raises(TutelageError, match=r"data\.fields: text and prompt both are 'prompt'; null leaves one out"):
        corpus(tmp_path, fields={"text": "prompt"})
    data = corpus(tmp_path, fields={"text": "prompt", "prompt": None, "completion": None})
    data.setup()
    assert "answer" not in data.sample(1)


FILES = {
    "latin-1": ("a.txt", "caf\xe9".encode("latin-1"), r"a.txt is not utf-8: byte 3 can't be decoded .* data.encoding"),
    "no JSON": ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a.jsonl:2 is no JSON"),
    "a list": ("a.jsonl", b"[1]", r"a.jsonl:1: expected a JSON object; found list"),
    "no text": ("a.jsonl", b'{"body": "x"}', r"a.jsonl:1 has no 'text'; .*body.*data.fields"),
    "a number": ("a.jsonl", b'{"text": 3}', r"a.jsonl:1: 'text' must be a text; found int"),
    "no answer": ("a.jsonl", b'{"prompt": "x", "completion": " "}', r"a.jsonl:1: its 'completion' is empty"),
    "empty": ("a.txt", b" \n", r"all of its 1 documents are empty"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_one_sentence_with_file_and_line(tmp_path, name):
    file, content, said = FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TutelageError, match=said):
        corpus(tmp_path)


def test_empty_documents_are_left_out_and_counted(tmp_path, caplog):
    write_texts(tmp_path / "corpus")
    (tmp_path / "corpus" / "30.txt").write_text("\n")
    corpus(tmp_path / "corpus").setup()
    assert "1 empty documents are left out, 24 stay" in caplog.text
