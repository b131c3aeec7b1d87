"""``hiddenscope experiment sentiment``: does a network that saw few bad reviews know less of bad words?

A word-level GRU learns whether a snippet of a movie review is positive, once from as many negative as positive ones,
once from four positive ones for each negative one; all else is equal. Both are looked at as RNNVis (Ming et al. 2017)
does, whose authors compared models trained on balanced and on unbalanced reviews of another data set.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    from hiddenscope.experiments.datasets.reviews import Reviews
    from hiddenscope.experiments.datasets.text import Vocabulary

Ints = npt.NDArray[np.int64]

NAMES = ("balanced", "unbalanced")
SHARES = {"balanced": 0.5, "unbalanced": 0.8}
"""The share of positive snippets among those that each network learns from."""
SENTENCES = (
    "a very good and moving film",
    "a very bad and boring film",
    "not a good film",
    "the film is not bad , it is fun",
)
GOOD = ("good", "best", "funny", "fun", "great", "entertaining", "moving", "enjoyable", "well", "love")
BAD = ("bad", "worst", "boring", "dull", "lacks", "mess", "fails", "silly", "too", "no")
LENGTH = 30
RATE = 2e-3
MEASURES = ("train_loss", "test_loss", "accuracy", "recall_positive", "recall_negative")
LEAST_COUNT = 3


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    train: int
    test: int
    probe: int
    epochs: int
    units: int
    most_words: int | None


FULL = Size(train=5000, test=1600, probe=512, epochs=12, units=64, most_words=None)
QUICK = Size(train=400, test=200, probe=64, epochs=2, units=16, most_words=400)


@dataclass(frozen=True)
class Material:
    """The vocabulary, what each network may learn from, what is held out, and the probe."""

    words: Vocabulary
    train: Mapping[str, tuple[Ints, Ints]]
    test: tuple[Ints, Ints]
    probe: Ints


def run(context: Context) -> None:
    """Train both, and compare what they do with words and sentences."""
    import pandas as pd

    from hiddenscope.experiments.datasets.reviews import load_reviews

    size = QUICK if context.quick else FULL
    data = material(load_reviews(context.arguments.data), size, seed=context.seed)
    logs = {name: _trained(context, name, data, size) for name in NAMES}
    rows = [
        {"network": name, "epoch": float(epoch), **{key: float(log[key].sel(epoch=epoch)) for key in MEASURES}}
        for name, log in logs.items()
        for epoch in log["epoch"].values
    ]
    context.table("epochs", pd.DataFrame(rows))
    for name, log in logs.items():
        best = log.isel(epoch=int(np.argmax(log["accuracy"].values)))
        context.number(f"{name}: epoch of the best accuracy", float(best["epoch"]))
        for key in ("accuracy", "recall_positive", "recall_negative"):
            context.number(f"{name}: {key} there", float(best[key]))
            context.number(f"{name}: {key} at the end", float(log[key][-1]))
    _compare(context, logs)


def material(reviews: Reviews, size: Size, *, seed: int) -> Material:
    """Split the snippets: a balanced part is held out, and each network gets its own mixture of the same size.

    Raises:
        ValueError: there are too few snippets.
    """
    from hiddenscope.experiments.datasets.text import vocabulary, words_of

    rng = np.random.default_rng(seed)
    texts = [words_of(text) for text in reviews.texts]
    kinds = {kind: rng.permutation(np.flatnonzero(reviews.labels == kind)) for kind in (0, 1)}
    half = size.test // 2
    needed = half + round(max(SHARES.values()) * size.train)
    if min(map(len, kinds.values())) < half + size.train // 2 or len(kinds[1]) < needed:
        raise ValueError(f"{needed} positive snippets are needed, and there are {len(kinds[1])}")
    held = np.concatenate([kinds[1][:half], kinds[0][:half]])
    mixtures = {}
    for name, share in SHARES.items():
        positive = round(share * size.train)
        mixtures[name] = np.concatenate(
            [kinds[1][half : half + positive], kinds[0][half : half + size.train - positive]]
        )
    # The vocabulary is that of what the balanced network learns from, for both.
    words = vocabulary((texts[i] for i in mixtures["balanced"]), least=LEAST_COUNT, most=size.most_words)

    def encoded(chosen: Ints) -> tuple[Ints, Ints]:
        return np.stack([words.encode(texts[i], length=LENGTH) for i in chosen]), reviews.labels[chosen]

    test = encoded(held)
    probe = test[0][rng.permutation(len(held))[: size.probe]]
    return Material(words, {name: encoded(chosen) for name, chosen in mixtures.items()}, test, probe)


def _trained(context: Context, name: str, data: Material, size: Size) -> xr.Dataset:
    folder = context.out / "runs" / name
    parameters: dict[str, Any] = {"network": name, "size": vars(size), "share": SHARES[name], "length": LENGTH}

    def compute() -> xr.Dataset:
        return _train(context, data, size, name, folder)

    log = context.cached(f"training-{name}", parameters, compute)
    return log if (folder / "hiddenscope").exists() else compute()


def _train(context: Context, data: Material, size: Size, name: str, folder: Path) -> xr.Dataset:
    import torch

    from hiddenscope.experiments.text_models import Classifier, Plan, train

    torch.set_num_threads(1)
    torch.manual_seed(context.seed)
    tokens, labels = data.test
    directions: list[npt.NDArray[np.float32]] = []
    model = Classifier(len(data.words.names), units=size.units)

    def measure(network: torch.nn.Module) -> dict[str, float]:
        logits = network(torch.from_numpy(tokens))
        right = (logits.argmax(dim=1).numpy() == labels).astype(float)
        directions.append((model.answer.weight[1] - model.answer.weight[0]).numpy().copy())
        return {
            "test_loss": float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))),
            "accuracy": float(right.mean()),
            "recall_positive": float(right[labels == 1].mean()),
            "recall_negative": float(right[labels == 0].mean()),
        }

    log = train(
        model,
        folder,
        plan=Plan(epochs=size.epochs, batch=32, rate=RATE, seed=context.seed),
        sequences=lambda _rng: data.train[name],
        probe=data.probe,
        token_names=data.words.names,
        measure=measure,
        progress=lambda epochs: context.progress(epochs, name),
    )
    return xr.Dataset(
        {
            **{key: ("epoch", [row.get(key, np.nan) for row in log]) for key in MEASURES},
            "direction": (("epoch", "unit"), np.stack(directions)),
        },
        coords={"epoch": [row["epoch"] for row in log]},
    )


def evidence(responses: xr.Dataset, direction: npt.ArrayLike) -> xr.DataArray:
    """How far each word moves the state toward a positive answer: its response along the readout; dims (word,)."""
    values = responses["response"].values @ np.asarray(direction, dtype=np.float64)
    return xr.DataArray(values, dims="word", coords={"word": responses["name"].values}, name="evidence")


def _compare(context: Context, logs: Mapping[str, xr.Dataset]) -> None:
    """Tables and figures of the two runs."""
    import pandas as pd

    from hiddenscope.analyses.cocluster import COCLUSTER, CoClusters
    from hiddenscope.analyses.expected_response import run_responses
    from hiddenscope.analyses.studies import make
    from hiddenscope.dashboard.figures.rnnvis import rnnvis
    from hiddenscope.dashboard.figures.rnnvis_detail import co_cluster_agreement
    from hiddenscope.dashboard.panels.rnnvis_sentence import sentence_figures
    from hiddenscope.results import ResultStore
    from hiddenscope.run import open_run

    shown, table = [], {}
    for name in NAMES:
        recorded = open_run(context.out / "runs" / name)
        with ResultStore.open(recorded.location, writable=True) as store:
            study = make(COCLUSTER, recorded, "gru", store)
        responses = run_responses(recorded, "gru")
        assert study is not None
        assert responses is not None
        found = CoClusters(study["word_cluster"].values[-1], study["unit_cluster"].values[-1])
        context.figure(
            f"{name}-map", rnnvis(responses, found), width=1300, height=820, title=f"{name}: chips and words"
        )
        agreement = co_cluster_agreement(study, recorded.metrics())
        context.figure(f"{name}-agreement", agreement, width=700, height=360, title=f"{name}: co-clusters over epochs")
        context.number(f"{name}: agreement of units at the end", float(study["agreement_units"][-1]))
        context.number(f"{name}: agreement of words at the end", float(study["agreement_words"][-1]))
        everything = run_responses(recorded, "gru", top=100_000)
        assert everything is not None
        own = evidence(everything, logs[name]["direction"].values[-1])
        counts = everything["count"].values
        context.number(f"{name}: mean evidence of a step", float((own.values * counts).sum() / counts.sum()))
        table[name] = own.to_series()
        for kind, words in (("good", GOOD), ("bad", BAD)):
            there = [word for word in words if word in own["word"].values]
            context.number(
                f"{name}: mean evidence of {kind} words", float(own.sel(word=there).mean()) if there else None
            )
        shown.append((recorded, "gru", float(recorded.epochs[-1]), found, name))
    context.table("words", pd.DataFrame(table).rename_axis("word").reset_index())
    for number, sentence in enumerate(SENTENCES, start=1):
        for figure, name in zip(sentence_figures(shown, sentence, 0, dark=False), NAMES, strict=True):
            title = f"{name}: {sentence}"
            context.figure(
                f"sentence-{number}-{name}", figure, width=1200, height=int(figure.layout.height or 400), title=title
            )
    context.note(f"look at both networks with: hiddenscope dashboard {context.out / 'runs'}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the reviews are."""
    parser.add_argument("--data", type=Path, help="folder with the reviews (default: where they are fetched to)")


EXPERIMENT = Experiment(
    name="sentiment",
    summary="a word-level GRU on movie reviews, from balanced and from unbalanced training data",
    run=run,
    add_arguments=add_arguments,
)
