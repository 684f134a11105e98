"""data=movie_reviews: the published file, its split, its scores and the other sentences."""

import os
from pathlib import Path

import pytest
from texts import movie_reviews

from tutelage.data.text.movie_reviews import MovieReviews, OtherSentences
from tutelage.errors import TutelageError

pytest.importorskip("tokenizers")
SIZES = {"val_size": 20, "test_size": 30, "batch_size": 8, "seed": 0}


def test_signs_are_classes_and_sentences_of_score_0_are_left_out(tmp_path):
    data = MovieReviews(root=movie_reviews(tmp_path), **SIZES)
    assert sum(len(one) for one in data.splits.values()) == 108
    assert (data.num_classes, data.class_names) == (2, ["negative", "positive"])
    train = data.splits["train"]
    for key, label in zip(train.keys.tolist(), train.labels.tolist(), strict=True):
        assert label == (float(data.parts["train"].labels[key]) > 0)
    assert "caf\xe9" in " ".join(data.parts["train"].texts + data.parts["test"].texts)


def test_scores_are_numbers_of_all_sentences(tmp_path):
    data = MovieReviews(root=movie_reviews(tmp_path), label="score", **SIZES)
    assert (data.num_classes, data.num_outputs) == (None, 1)
    assert sum(len(one) for one in data.splits.values()) == 120


def test_the_other_sentences_are_a_transfer_set(tmp_path):
    root = movie_reviews(tmp_path)
    data = MovieReviews(root=root, unlabelled=[OtherSentences(root=root)], **SIZES)
    train = data.splits["train"]
    assert (train.labels < 0).sum() == 6
    assert data.shown("train", train.keys[-1:].tolist()) == ["a film of tweets 1"]


def test_mistakes_are_said(tmp_path):
    with pytest.raises(TutelageError, match=r"there is no .*movieReviewSnippets.*vaderSentiment"):
        MovieReviews(root=tmp_path, **SIZES)
    with pytest.raises(TutelageError, match="must be sign or score; found 'stars'"):
        MovieReviews(root=tmp_path, label="stars", **SIZES)


def test_the_real_file_has_the_published_numbers():
    root = Path(os.environ.get("TUTELAGE_DATA", "nowhere"))
    if not (root / "text" / "hutto2014").is_dir():
        pytest.skip("needs TUTELAGE_DATA=<folder with text/hutto2014>")
    data = MovieReviews(root=root, **SIZES | {"val_size": 1000, "test_size": 2000})
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 7568, "val": 1000, "test": 2000}
    labels = [split.labels for split in data.splits.values()]
    assert sum(int((one == 1).sum()) for one in labels) == 5242
    assert sum(int((one == 0).sum()) for one in labels) == 5326
    assert len(OtherSentences(root=root).rows()) == 13_098
