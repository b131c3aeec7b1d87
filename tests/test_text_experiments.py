"""The experiments on text, from end to end on made texts, and the measures they rest on."""

import argparse
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from hiddenscope.experiments import sentiment, shakespeare
from hiddenscope.experiments.datasets.reviews import FILE, load_reviews
from hiddenscope.experiments.experiment import Context, carry_out
from hiddenscope.run import open_run

SPEECH = "ACT I.\n\nWho's there? Nay, answer me: stand, and unfold yourself.\nLong live the king!\n"


@pytest.fixture
def reviews(tmp_path):
    rng = np.random.default_rng(0)
    good, bad, other = ["good", "fun", "best"], ["bad", "dull", "worst"], ["a", "the", "film", "of", "is"]
    lines = []
    for i in range(1200):
        kind = i % 3 != 0  # twice as many good ones
        words = [*rng.choice(other, rng.integers(2, 6)), rng.choice(good if kind else bad), "."]
        lines.append(f"{i}\t{2.0 if kind else -2.0}\t{' '.join(words)}")
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / FILE).write_text("\n".join(lines))
    return folder


def summary_of(out):
    return json.loads((out / "summary.json").read_text())


def test_sentiment_trains_both_networks_records_them_and_takes_up_what_it_has(tmp_path, reviews, monkeypatch):
    size = sentiment.Size(train=300, test=100, probe=40, epochs=4, units=12, most_words=None)
    monkeypatch.setattr(sentiment, "QUICK", size)
    out = tmp_path / "out"
    context = Context(out, quick=True, arguments=argparse.Namespace(data=reviews))
    carry_out(sentiment.EXPERIMENT, context, pictures=False)
    summary = summary_of(out)
    assert summary["status"] == "finished"
    epochs = pd.read_csv(out / "epochs.csv")
    assert epochs.groupby("network")["epoch"].count().tolist() == [5, 5]
    assert epochs.query("network == 'balanced'")["accuracy"].iloc[-1] > 0.9, "these words give it away"
    numbers = summary["numbers"]
    assert (
        numbers["balanced: mean evidence of good words"] > 0.2 > -0.2 > numbers["balanced: mean evidence of bad words"]
    )
    words = pd.read_csv(out / "words.csv").set_index("word")
    assert words.loc["good", "balanced"] > words.loc["bad", "balanced"]
    for name in sentiment.NAMES:
        run = open_run(out / "runs" / name)
        assert run.token_names[:2] == ("<pad>", "<unk>")
        assert np.isnan(run.trace("gru", epochs=0).values).any(), "steps of padding are not states"
        assert run.results.get("gru", "cocluster") is not None
        assert (out / f"sentence-1-{name}.html").exists()
    again = Context(out, quick=True, arguments=argparse.Namespace(data=reviews))
    carry_out(sentiment.EXPERIMENT, again, pictures=False)
    assert len(summary_of(out)["reused"]) == 2
    assert summary_of(out)["numbers"] == numbers


def test_the_two_mixtures_have_one_size_and_share_nothing_with_what_is_held_out(reviews):
    size = sentiment.Size(train=300, test=100, probe=40, epochs=1, units=4, most_words=None)
    data = sentiment.material(load_reviews(reviews), size, seed=0)
    assert {name: (len(labels), int(labels.sum())) for name, (_, labels) in data.train.items()} == {
        "balanced": (300, 150),
        "unbalanced": (300, 240),
    }
    assert data.test[1].mean() == 0.5
    with pytest.raises(ValueError, match="snippets are needed"):
        sentiment.material(load_reviews(reviews), sentiment.FULL, seed=0)


def test_evidence_is_the_response_along_the_readout():
    responses = xr.Dataset(
        {"response": (("word", "unit"), [[1.0, 2.0], [0.0, -1.0]])}, coords={"name": ("word", ["a", "b"])}
    )
    assert_allclose(sentiment.evidence(responses, [3.0, 0.5]), [4.0, -0.5])


def test_shakespeare_trains_on_all_plays_but_one_and_looks_at_both_states(tmp_path):
    plays = tmp_path / "plays"
    plays.mkdir()
    for name in ("hamlet", "macbeth", "lear"):
        (plays / f"{name}_gut.txt").write_text(SPEECH * 4)
    out = tmp_path / "out"
    context = Context(out, quick=True, arguments=argparse.Namespace(data=plays))
    carry_out(shakespeare.EXPERIMENT, context, pictures=False)
    summary = summary_of(out)
    assert summary["status"] == "finished"
    assert summary["numbers"]["held out"] == "macbeth"
    assert (
        summary["numbers"]["bits per character at the end"] < summary["numbers"]["bits per character before training"]
    )
    run = open_run(out / "runs" / "plays")
    assert set(run.layers) == {"lstm", "lstm.c"}
    assert {"lstm-map.html", "lstm-c-sentence.html", "agreement.csv"} <= set(summary["files"])


def test_pieces_of_a_text_come_with_the_same_piece_one_character_later():
    codes = {"a": np.arange(50), "b": np.arange(100, 130)}
    tokens, targets = shakespeare.sequences_of(codes, count=200, length=10, rng=np.random.default_rng(0))
    assert tokens.shape == targets.shape == (200, 10)
    assert (targets == tokens + 1).all()
    assert 0.1 < (tokens[:, 0] >= 100).mean() < 0.6, "drawn in proportion to the texts' lengths"
    with pytest.raises(ValueError, match="more than 30"):
        shakespeare.sequences_of(codes, count=1, length=30, rng=np.random.default_rng(0))


def test_kinds_of_characters_agree_fully_with_clusters_that_are_those_kinds():
    names = list("aeBC ,\nt")
    kinds = [shakespeare.KINDS.index(shakespeare.kind_of(name)) for name in names]
    study = xr.Dataset(
        {"word_cluster": (("epoch", "word"), [kinds, [0] * 8])}, coords={"name": ("word", names), "epoch": [0, 1]}
    )
    assert_allclose(shakespeare.kinds_found(study), [1.0, 0.0])
