"""``hiddenscope experiment shakespeare``: what do the units of a network that writes like Shakespeare answer to?

A character-level LSTM learns to say the next character of the plays. Its hidden and cell states are looked at as RNNVis
(Ming et al. 2017) does: which characters do units answer to alike, when does that settle while the network learns, and
do the co-clusters of characters have to do with what people call vowels, consonants, capitals and marks?
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
    from hiddenscope.experiments.datasets.text import Vocabulary

Ints = npt.NDArray[np.int64]

HELD_OUT = "macbeth"
"""The play that is not learned from."""
LAYERS = {"lstm": "hidden states", "lstm.c": "cell states"}
KINDS = ("vowel", "consonant", "capital", "blank", "mark")
SENTENCE = "To be, or not to be: that is the question."
RATE = 3e-3


@dataclass(frozen=True)
class Size:
    """How large the experiment is: sequences are drawn anew in each epoch."""

    sequences: int
    length: int
    test: int
    probe: int
    epochs: int
    units: int


FULL = Size(sequences=6400, length=48, test=400, probe=128, epochs=16, units=96)
QUICK = Size(sequences=128, length=24, test=32, probe=16, epochs=2, units=16)


def run(context: Context) -> None:
    """Train, and look."""
    import pandas as pd

    from hiddenscope.experiments.datasets.plays import load_plays
    from hiddenscope.experiments.datasets.text import vocabulary

    size = QUICK if context.quick else FULL
    plays = load_plays(folder=context.arguments.data)
    held = HELD_OUT if HELD_OUT in plays else sorted(plays)[-1]
    if len(plays) < 2 or min(map(len, plays.values())) <= size.length + 1:
        raise ValueError(f"two or more plays of at least {size.length + 2} characters are needed")
    letters = vocabulary(list(text) for text in plays.values())
    codes = {name: letters.encode(list(text), length=len(text)) for name, text in plays.items()}
    folder = context.out / "runs" / "plays"

    def compute() -> xr.Dataset:
        return _train(context, letters, codes, held, size, folder)

    parameters = {"size": vars(size), "held_out": held, "plays": sorted(plays), "rate": RATE}
    log = context.cached("training", parameters, compute)
    if not (folder / "hiddenscope").exists():
        log = compute()
    context.table("epochs", pd.DataFrame({"epoch": log["epoch"], **{name: log[name] for name in log.data_vars}}))
    context.number("bits per character before training", float(log["bits_per_character"][0]))
    context.number("bits per character at the end", float(log["bits_per_character"][-1]))
    context.number("held out", held)
    _look(context, folder)


def kind_of(character: str) -> str:
    """What people call a character: one of `KINDS`.

    >>> [kind_of(character) for character in "aZx .0"]
    ['vowel', 'capital', 'consonant', 'blank', 'mark', 'mark']
    """
    if character.isspace():
        return "blank"
    if character.isupper():
        return "capital"
    if character.isalpha():
        return "vowel" if character in "aeiou" else "consonant"
    return "mark"


def sequences_of(codes: Mapping[str, Ints], *, count: int, length: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Pieces of the texts, and the same one character later; a text is drawn in proportion to its length."""
    names = sorted(codes)
    starts = np.array([len(codes[name]) - length for name in names])
    if starts.min() < 1:
        raise ValueError(f"texts need more than {length} characters, got one of {starts.min() + length}")
    chosen = rng.choice(len(names), size=count, p=starts / starts.sum())
    pieces = np.empty((count, length + 1), dtype=np.int64)
    for row, text in enumerate(chosen.tolist()):
        start = int(rng.integers(starts[text]))
        pieces[row] = codes[names[text]][start : start + length + 1]
    return pieces[:, :-1], pieces[:, 1:]


def _train(
    context: Context, letters: Vocabulary, codes: Mapping[str, Ints], held: str, size: Size, folder: Path
) -> xr.Dataset:
    import torch

    from hiddenscope.experiments.text_models import NextToken, Plan, train

    torch.set_num_threads(1)
    torch.manual_seed(context.seed)
    rng = np.random.default_rng(context.seed)
    learned = {name: text for name, text in codes.items() if name != held}
    tokens, targets = sequences_of({held: codes[held]}, count=size.test, length=size.length, rng=rng)

    def measure(network: torch.nn.Module) -> dict[str, float]:
        logits = network(torch.from_numpy(tokens))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
        return {"test_loss": float(loss), "bits_per_character": float(loss) / float(np.log(2))}

    log = train(
        NextToken(len(letters.names), units=size.units),
        folder,
        plan=Plan(epochs=size.epochs, batch=64, rate=RATE, seed=context.seed),
        sequences=lambda draws: sequences_of(learned, count=size.sequences, length=size.length, rng=draws),
        probe=tokens[: size.probe],
        token_names=letters.names,
        measure=measure,
        quantities=("h", "c", "inputs"),
        progress=lambda epochs: context.progress(epochs, "plays"),
    )
    names = ("train_loss", "test_loss", "bits_per_character")
    return xr.Dataset(
        {name: ("epoch", [row.get(name, np.nan) for row in log]) for name in names},
        coords={"epoch": [row["epoch"] for row in log]},
    )


def kinds_found(study: xr.Dataset) -> npt.NDArray[np.float64]:
    """How well the co-clusters of characters agree with `KINDS`, at each epoch: adjusted Rand index, 0 by chance."""
    from hiddenscope.analyses.cocluster import agreement

    kinds = np.array([KINDS.index(kind_of(str(name))) for name in study["name"].values])
    return np.array([agreement(kinds, row) for row in study["word_cluster"].values])


def _look(context: Context, folder: Path) -> None:
    import pandas as pd

    from hiddenscope.analyses.cocluster import COCLUSTER, CoClusters
    from hiddenscope.analyses.expected_response import run_responses
    from hiddenscope.analyses.studies import make
    from hiddenscope.dashboard.figures.rnnvis import rnnvis
    from hiddenscope.dashboard.figures.rnnvis_detail import co_cluster_agreement
    from hiddenscope.dashboard.panels.rnnvis_sentence import sentence_figures
    from hiddenscope.results import ResultStore
    from hiddenscope.run import open_run

    recorded = open_run(folder)
    table: dict[str, Any] = {}
    for layer, what in LAYERS.items():
        with ResultStore.open(recorded.location, writable=True) as store:
            study = make(COCLUSTER, recorded, layer, store)
        responses = run_responses(recorded, layer)
        assert study is not None
        assert responses is not None
        found = CoClusters(study["word_cluster"].values[-1], study["unit_cluster"].values[-1])
        short = layer.replace(".", "-")
        title = f"{what}: chips and characters"
        context.figure(f"{short}-map", rnnvis(responses, found), width=1200, height=640, title=title)
        over_epochs = co_cluster_agreement(study, recorded.metrics()[["train_loss", "test_loss"]])
        context.figure(
            f"{short}-agreement", over_epochs, width=760, height=380, title=f"{what}: co-clusters over epochs"
        )
        (glyphs,) = sentence_figures(
            [(recorded, layer, float(recorded.epochs[-1]), found, what)], SENTENCE, 0, dark=False
        )
        context.figure(f"{short}-sentence", glyphs, width=1300, height=int(glyphs.layout.height or 500), title=SENTENCE)
        kinds = kinds_found(study)
        table |= {
            "epoch": study["epoch"].values,
            f"{layer}: units stay": study["agreement_units"].values,
            f"{layer}: characters stay": study["agreement_words"].values,
            f"{layer}: kinds of characters": kinds,
        }
        context.number(f"{layer}: agreement of units at the end", float(study["agreement_units"][-1]))
        context.number(f"{layer}: agreement with kinds of characters, untrained", float(kinds[0]))
        context.number(f"{layer}: agreement with kinds of characters, at the end", float(kinds[-1]))
    context.table("agreement", pd.DataFrame(table))
    context.note(f"look at the network with: hiddenscope dashboard {folder.parent}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the plays are."""
    parser.add_argument("--data", type=Path, help="folder with the plays (default: where they are fetched to)")


EXPERIMENT = Experiment(
    name="shakespeare",
    summary="a character-level LSTM on the plays: which characters its units answer to alike",
    run=run,
    add_arguments=add_arguments,
)
