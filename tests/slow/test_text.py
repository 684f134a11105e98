"""Text from the command line: a whole job, its report, a resumed run, and a teacher of another tokenizer."""

import json
import signal

import pytest
from command import tutelage
from runs import figures, weights
from texts import conll, reviews, tsv

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.slow
QUICK = ("data.val_size=60", "data.test_size=60", "trainer.max_epochs=2", "callbacks.progress=null", "logger=csv")
NETS = ("model@teacher=text_transformer", "model@student=text_cnn", "teacher.net.width=16", "teacher.net.layers=1")
JOB = ("data=text", "data.train=train.tsv", *NETS, *QUICK, "optimizer.lr=0.01", "data.labelled=100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("text")
    tsv(made / "train.tsv", reviews(320))
    tutelage("distill", *JOB, "hydra.run.dir=whole", cwd=made)
    return made


@pytest.mark.long
def test_a_job_ends_in_figures_and_its_report_shows_texts(folder):
    metrics = json.loads((folder / "whole" / "metrics.json").read_text())
    assert metrics["teacher"]["last"]["test"]["accuracy"] > 0.7
    assert metrics["student"]["last"]["test"]["count"] == 60
    tutelage("report", "whole", "--output", "page", cwd=folder)
    page = "".join(path.read_text() for path in (folder / "page").rglob("*.html"))
    assert "<blockquote>" in page or "No examples of disagreements" not in page


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_bits(folder):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 9, marker: {folder / 'm'}}}"
    often = (*JOB, "callbacks.recovery.every_n_steps=4", harm, "hydra.run.dir=killed")
    assert tutelage("distill", *often, cwd=folder, check=False).returncode == -signal.SIGKILL
    tutelage("distill", *often, cwd=folder)
    kept = {name: one for name, one in weights(folder / "killed" / "checkpoints").items() if name.startswith("last")}
    assert kept.items() <= weights(folder / "whole" / "checkpoints").items()
    assert figures(folder / "killed")["student"] == figures(folder / "whole")["student"]


@pytest.mark.long
def test_a_file_of_weights_is_evaluated_on_other_texts(folder):
    tsv(folder / "other.tsv", reviews(50, seed=9))
    file = next((folder / "whole").rglob("last*.safetensors"))
    done = tutelage("evaluate", f"checkpoint={file}", "+data.test=other.tsv", "hydra.run.dir=evaluated", cwd=folder)
    assert "50" in done.stdout


@pytest.mark.long
def test_a_teacher_of_another_tokenizer_is_refused(folder):
    file = next((folder / "outputs").rglob("last.safetensors"))
    given = f"sources.teacher.checkpoint={file}"
    done = tutelage("distill", *JOB, given, "data.tokenizer=bpe", "hydra.run.dir=refused", cwd=folder, check=False)
    assert done.returncode == 1
    assert "was trained with another tokenizer (words, digest" in done.stderr


@pytest.mark.long
def test_a_label_for_each_word_is_a_whole_job_and_cached_signals_of_tokens_train_as_live_ones(folder):
    conll(folder / "names.conll", 200)
    net = "model_type: bert, vocab_size: '${data.vocab_size}', hidden_size: 16, num_hidden_layers: 1"
    net = f"config={{{net}, num_attention_heads: 2, intermediate_size: 16}}"
    nets = [f"{role}.{key}" for role in ("teacher", "student") for key in ("auto=AutoModelForTokenClassification", net)]
    job = ("data=tagged_words", "data.train=names.conll", "model@teacher=hf", "model@student=hf", *nets, *QUICK)
    for name, how in {"live": (), "cached": ("sources=cached",)}.items():
        tutelage("distill", *job, *how, f"hydra.run.dir={name}", cwd=folder)
    live, cached = (figures(folder / name)["student"]["last"]["test"] for name in ("live", "cached"))
    assert cached == pytest.approx(live, rel=1e-3, abs=0.01)  # last bits change with the width of a batch
    metrics = json.loads((folder / "live" / "metrics.json").read_text())
    assert metrics["student"]["last"]["test"]["span_f1"] >= 0


@pytest.mark.long
def test_rewritten_texts_are_replayed_by_a_cache_to_the_bit_and_an_evaluation_needs_no_lexicon(folder):
    lexicon = folder / "lexicon.txt"
    lexicon.write_text("good JJ\ngreat JJ\nfine JJ\nbad JJ\ndull JJ\nfilm NN\nplot NN\n")
    tagger = f"{{_target_: tutelage.data.text.word_tags.Lexicon, source: {lexicon}}}"
    step = f"{{_target_: tutelage.data.text.tang.TangRewrite, tagger: {tagger}}}"
    longer = [one for one in JOB if "max_epochs" not in one]
    views = (f"data.augment=[{step}]", "+stages.teacher.data.augment=null", "data.views=3", "data.pad=max")
    short = ("data.max_length=24", "trainer.max_epochs=4", "stages.teacher.trainer.max_epochs=2")
    job = (*longer, *views, *short, "loss=logit_mse", "loss.alpha=1")
    for name, cache in (("live_views", ()), ("cached_views", ("sources=cached",))):
        tutelage("distill", *job, *cache, f"hydra.run.dir={name}", cwd=folder)
    assert weights(folder / "live_views" / "checkpoints") == weights(folder / "cached_views" / "checkpoints")
    signals = [path for path in folder.rglob("recipe.json") if path.parent.parent.name == "signals"]
    assert any(json.loads(path.read_text())["views"] == 3 for path in signals if "augment" in path.read_text())
    lexicon.unlink()
    file = folder / "cached_views" / "checkpoints" / "last.safetensors"
    assert "60" in tutelage("evaluate", f"checkpoint={file}", "hydra.run.dir=again", cwd=folder).stdout


@pytest.mark.long
def test_a_student_by_words_learns_from_a_teacher_by_pieces_and_its_file_is_evaluated(folder):
    short = [one for one in JOB if one != "model@student=text_cnn"]
    own = ("data.tokenizer=bpe", "data.max_vocab_size=60", "data.student_tokenizer=words", "model@student=bilstm_words")
    tutelage("distill", *short, *own, "loss=logit_mse", "hydra.run.dir=words", cwd=folder)
    metrics = json.loads((folder / "words" / "metrics.json").read_text())
    file = folder / "words" / "checkpoints" / "last.safetensors"
    done = tutelage("evaluate", f"checkpoint={file}", "hydra.run.dir=words_again", cwd=folder)
    assert f"{metrics['student']['last']['test']['nll']:.4f}" in done.stdout


@pytest.mark.long
def test_two_ranks_on_texts_of_all_lengths_are_one_process(folder):
    still = ("student.net.dropout=0", "teacher.net.dropout=0", "loss=logit_mse", "paths.artifacts={}_shop")
    both = {"one": (), "two": ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")}
    for name, ranks in both.items():
        given = [one.format(name) for one in still]
        tutelage("distill", *JOB, *given, *ranks, f"hydra.run.dir={name}", cwd=folder)
    one, two = (figures(folder / name) for name in both)
    for role in ("teacher", "control", "student"):
        for split in ("val", "test"):
            assert two[role]["last"][split] == pytest.approx(one[role]["last"][split], rel=1e-3, abs=1e-4), (
                role,
                split,
            )
