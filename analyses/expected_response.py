"""What every unit does, on average, when it meets a token: the expected response of RNNVis (Ming et al. 2017).

The update of a unit at a step is how far its state moves there; its expected response to a token is the mean of its
updates over all places where the token stands. Where the inputs are no tokens, discrete events take their place: the
symbol of a one-hot input, a bin of a real-valued channel, or the class of the sequence. That extension is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.run import Run

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

QUANTILES = (0.09, 0.25, 0.75, 0.91)
"""The outer and the inner band around an expected response."""
RESERVOIR = 200
"""Updates of each word that are kept for its quantiles; with fewer occurrences the quantiles are exact."""
TOP_WORDS = 300
"""Words that are studied, the most frequent ones."""
RARE = 5
"""Words that occur less often have bands too wide to mean much."""
SILENT = 1e-8
"""A response no larger than this is none."""
PADDING_NAMES = frozenset({"<pad>", "[PAD]", "<PAD>", "PAD", "pad"})
"""Tokens of these names fill sequences up, and are left out."""

_CHANNELS = 12  # real-valued channels that become words; more would not be told apart
_BLOCK = 8_000_000  # numbers that are held at once while a run is read


@dataclass(frozen=True)
class Events:
    """What stands at each step of each sequence.

    Attributes:
        words: codes 0, 1, …, or -1 for nothing; shape (sample, step, track). Tokens have one track; several real-valued
            channels have one each, for every step then says something of each of them.
        names: the name of each code.
        kind: ``"token"``, ``"symbol"``, ``"value"`` or ``"class"``.
    """

    words: Ints
    names: tuple[str, ...]
    kind: str


def token_events(tokens: npt.ArrayLike, names: Sequence[str] | None = None) -> Events:
    """The events of integer tokens (sample, step); negative ones, and those named like padding, are none.

    >>> token_events([[2, 0, 1]], ["<pad>", "a", "b"]).words[0, :, 0].tolist()
    [2, -1, 1]
    """
    values = np.asarray(tokens)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(f"tokens need integers of shape (sample, step), got {values.dtype} of shape {values.shape}")
    words = values.astype(np.int64)
    count = max(int(words.max(initial=-1)) + 1, len(names or ()))
    called = tuple(str(name) for name in names or ()) + tuple(
        f"token {code}" for code in range(len(names or ()), count)
    )
    padding = [code for code, name in enumerate(called) if name in PADDING_NAMES]
    words = np.where((words < 0) | np.isin(words, padding), -1, words)
    return Events(words[..., np.newaxis], called, "token")


def value_events(inputs: npt.ArrayLike, *, bins: int | None = None) -> Events:
    """The events of real-valued inputs (sample, step, channel): which quantile bin each channel is in.

    One-hot inputs become symbols. Otherwise each channel is cut at its own quantiles, into ``bins`` (default: 7 for one
    channel, 3 for several), and each bin of each channel is a word; of many channels the 12 that vary most are taken.
    Not in RNNVis, which reads text only.

    >>> value_events([[[0.0], [1.0], [2.0], [3.0]]], bins=2).names
    ('input 0: 0 to 1.5', 'input 0: 1.5 to 3')
    """
    values = np.asarray(inputs, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"inputs need shape (sample, step, channel), got {values.shape}")
    if bins is not None and bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    known = np.isfinite(values)
    if values.shape[2] > 1 and _is_one_hot(values, known):
        words = np.where(known.all(axis=2), np.nan_to_num(values).argmax(axis=2), -1).astype(np.int64)
        return Events(words[..., np.newaxis], tuple(f"symbol {code}" for code in range(values.shape[2])), "symbol")
    spread = np.array(
        [np.std(values[..., c][known[..., c]]) if known[..., c].any() else 0 for c in range(values.shape[2])]
    )
    channels = np.sort(np.argsort(-spread, kind="stable")[:_CHANNELS])
    wanted = bins or (7 if len(channels) == 1 else 3)
    tracks: list[Ints] = []
    names: list[str] = []
    for channel in channels:
        column, here = values[..., channel], known[..., channel]
        edges = np.unique(np.quantile(column[here], np.linspace(0, 1, wanted + 1))) if here.any() else np.zeros(1)
        inner = edges[1:-1]
        codes = np.searchsorted(inner, np.where(here, column, 0.0), side="right") + len(names)
        tracks.append(np.where(here, codes, -1))
        spans = list(itertools.pairwise(edges)) or [(edges[0], edges[0])]
        names += [f"input {channel}: {low:.3g} to {high:.3g}" for low, high in spans]
    return Events(np.stack(tracks, axis=-1).astype(np.int64), tuple(names), "value")


def class_events(labels: npt.ArrayLike, names: Sequence[str] | None, *, steps: int) -> Events:
    """The events of class labels (sample,): every step of a sequence stands for its class."""
    codes = np.asarray(labels, dtype=np.int64)
    count = max(int(codes.max(initial=-1)) + 1, len(names or ()))
    called = tuple(str(name) for name in names or ()) + tuple(
        f"class {code}" for code in range(len(names or ()), count)
    )
    return Events(np.repeat(codes[:, np.newaxis, np.newaxis], steps, axis=1), called, "class")


def events_of(run: Run, layer: str) -> Events | None:
    """The events of a run's probe at the recorded steps of a layer; None when the run has neither inputs nor labels.

    Integer tokens (sample, step), named by ``run.token_names`` where known; else real-valued inputs, binned; else the
    classes of the sequences.
    """
    steps = run.description.layer(layer).steps
    probe = run.probe
    if probe is not None and probe.ndim == 3 and probe.shape[2] == 1 and probe.dtype.kind in "iu":
        probe = probe[..., 0]
    if probe is not None and probe.ndim >= 2 and steps.max() < probe.shape[1]:
        if probe.ndim == 2 and probe.dtype.kind in "iu":
            found = token_events(probe, run.token_names)
        else:
            found = value_events(probe if probe.ndim == 3 else probe.reshape(*probe.shape[:2], -1))
        return Events(found.words[:, steps], found.names, found.kind)
    if run.description.labels is not None:
        return class_events(run.description.labels, run.label_names, steps=len(steps))
    return None


def updates(
    states: npt.ArrayLike,
    *,
    steps: npt.ArrayLike | None = None,
    backward: npt.ArrayLike | None = None,
    n_steps: int | None = None,
) -> Floats:
    """How far each state moves at each step: h[t] - h[t - 1], with h[-1] = 0.

    Args:
        states: shape (step, unit, sample); NaN past a sequence's end.
        steps: the step numbers; where a step's predecessor was not recorded, its update is not known (NaN).
        backward: which units read the sequence from its end, shape (unit,); their predecessor is the next step.
        n_steps: steps of the sequences, recorded or not; default none after the last that was.

    Returns:
        Of the shape of ``states``, float64.

    >>> updates([[[1.0]], [[3.0]], [[2.0]]])[:, 0, 0].tolist()
    [1.0, 2.0, -1.0]
    """
    values = np.asarray(states, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"states need shape (step, unit, sample), got {values.shape}")
    numbers = np.arange(len(values)) if steps is None else np.asarray(steps)
    found = values.copy()
    found[1:] -= values[:-1]
    if len(numbers):
        found[0] *= 1.0 if numbers[0] == 0 else np.nan
        found[1:][np.diff(numbers) != 1] = np.nan
    reverse = np.zeros(values.shape[1], dtype=bool) if backward is None else np.asarray(backward, dtype=bool)
    if reverse.any():
        own = values[:, reverse]
        after = np.zeros_like(own)
        after[:-1] = np.nan_to_num(own[1:])  # a sequence's last step follows nothing
        turned = own - after
        turned[:-1][np.diff(numbers) != 1] = np.nan
        if n_steps is not None and len(numbers) and numbers[-1] + 1 < n_steps:
            turned[-1] = np.nan
        found[:, reverse] = turned
    return found


def expected_response(
    states: npt.ArrayLike, words: npt.ArrayLike, *, n_words: int | None = None, seed: int = 0
) -> xr.Dataset:
    """The expected response of every unit to every word, from states that are in memory; see `stream_responses`.

    Args:
        states: shape (step, unit, sample); NaN past a sequence's end.
        words: codes, shape (sample, step) or (sample, step, track); -1 for nothing.
        n_words: how many codes there are; default: up to the largest that occurs.
        seed: of the reservoir that the quantiles come from.

    >>> states = np.cumsum([[[0.5]], [[-1.0]], [[0.5]]], axis=0)
    >>> expected_response(states, [[0, 1, 0]])["response"].values.tolist()
    [[0.5], [-1.0]]
    """
    codes = np.asarray(words, dtype=np.int64)
    values = np.asarray(states)
    count = n_words if n_words is not None else int(codes.max(initial=-1)) + 1
    return stream_responses([(updates(values), codes)], n_words=count, n_units=values.shape[1], seed=seed)


def stream_responses(
    blocks: Iterable[tuple[Floats, Ints]], *, n_words: int, n_units: int, seed: int = 0, reservoir: int = RESERVOIR
) -> xr.Dataset:
    """Expected responses from blocks of updates, each read once: sums for the means, a reservoir for the quantiles.

    Args:
        blocks: updates (step, unit, sample) and words (sample, step) or (sample, step, track).
        n_words: codes 0 to ``n_words - 1`` are counted, all others passed over.
        n_units: of each block.
        seed: of the reservoir (Vitter's algorithm R, one for each word).
        reservoir: updates that are kept for each word; with 0 there are no quantiles, and all bands are 0.

    Returns:
        ``response`` (word, unit): the mean update, 0 for a word that never occurs; ``band`` (quantile, word, unit): its
        quantiles at `QUANTILES`, linearly interpolated; ``count`` (word): how often a word occurs.
    """
    rng = np.random.default_rng(seed)
    sums = np.zeros((n_words, n_units))
    counts = np.zeros(n_words, dtype=np.int64)
    kept: list[Floats] = [np.empty((0, n_units), dtype=np.float32) for _ in range(n_words)]
    for moved, words in blocks:
        rows = np.moveaxis(moved, 1, -1)  # (step, sample, unit)
        whole = np.isfinite(rows).all(axis=-1)
        codes = np.asarray(words, dtype=np.int64)
        for track in np.moveaxis(codes if codes.ndim == 3 else codes[..., np.newaxis], -1, 0):
            at = track.T
            here = whole & (at >= 0) & (at < n_words)
            found, seen = rows[here], at[here]
            if not len(seen):
                continue
            order = np.argsort(seen, kind="stable")
            found, seen = found[order], seen[order]
            present, starts = np.unique(seen, return_index=True)
            for word, group in zip(present.tolist(), np.split(found, starts[1:]), strict=True):
                sums[word] += group.sum(axis=0)
                kept[word] = _sampled(kept[word], group, int(counts[word]), reservoir, rng)
                counts[word] += len(group)
    response = sums / np.maximum(counts, 1)[:, np.newaxis]
    band = np.zeros((len(QUANTILES), n_words, n_units), dtype=np.float32)
    for word, sample in enumerate(kept):
        if len(sample):
            band[:, word] = np.quantile(sample, QUANTILES, axis=0)
    return xr.Dataset(
        {
            "response": (("word", "unit"), response.astype(np.float32)),
            "band": (("quantile", "word", "unit"), band),
            "count": (("word",), counts),
        },
        coords={"word": np.arange(n_words), "unit": np.arange(n_units), "quantile": list(QUANTILES)},
    )


def run_responses(
    run: Run,
    layer: str,
    *,
    epoch: float | None = None,
    events: Events | None = None,
    top: int = TOP_WORDS,
    seed: int = 0,
    reservoir: int = RESERVOIR,
) -> xr.Dataset | None:
    """The expected responses of one layer at one epoch of a run, to the words that occur most often in its probe.

    Args:
        run: as `hiddenscope.open_run` gives it.
        layer: a layer that records hidden states, cell states, or anything else that is a state.
        epoch: a recorded epoch; None for the newest.
        events: what stands at each step; default `events_of`.
        top: most words to study.
        seed: of the reservoir.
        reservoir: as for `stream_responses`.

    Returns:
        As `stream_responses`, words in order of their frequency, with coordinate ``name`` (word) and the layer's own
        unit labels; attributes ``kind`` (of the events) and ``epoch``. None where a run has no events, or too few steps
        were recorded to know how far a state moves at each.
    """
    found = events if events is not None else events_of(run, layer)
    epochs = run.epochs
    if found is None or not len(epochs) or top < 1:
        return None
    at = float(epochs[-1]) if epoch is None else float(epoch)
    described = run.description.layer(layer)
    states = run.trace(layer, epochs=at).values[0]  # (step, unit, sample)
    backward = np.array([str(unit).startswith("backward ") for unit in described.units])
    reached = np.isfinite(states).all(axis=1)  # (step, sample)
    words, chosen = _most_frequent(found.words, reached.T, len(found.names), top)
    if not len(chosen):
        return None
    width = max(1, _BLOCK // max(states.shape[0] * states.shape[1], 1))
    probe = run.probe
    n_steps = probe.shape[1] if probe is not None and probe.ndim > 1 else None
    blocks = (
        (
            updates(states[..., i : i + width], steps=described.steps, backward=backward, n_steps=n_steps),
            words[i : i + width],
        )
        for i in range(0, states.shape[2], width)
    )
    result = stream_responses(blocks, n_words=len(chosen), n_units=states.shape[1], seed=seed, reservoir=reservoir)
    if not int(result["count"].sum()):
        return None
    names = np.array([found.names[code] for code in chosen], dtype=np.str_)
    return result.assign_coords(word=chosen, unit=described.units, name=("word", names)).assign_attrs(
        kind=found.kind, epoch=at, layer=layer
    )


def salient_words(responses: xr.Dataset, unit: object, *, count: int = 4, least: int = 1) -> xr.DataArray:
    """The words that a unit answers to most: up to ``count`` with the most positive mean, then as many negative ones.

    Args:
        responses: as `run_responses` gives them.
        unit: the unit's label.
        count: most words of each sign.
        least: words that occur less often are passed over.

    Returns:
        Mean responses, dims (word,): falling.
    """
    means = responses["response"].sel(unit=unit)
    known = means[(responses["count"] >= least).values]
    ordered = known[np.argsort(-known.values, kind="stable")]
    positive = ordered[ordered.values > SILENT][:count]
    negative = ordered[ordered.values < -SILENT][-count:]
    return xr.concat([positive, negative], dim="word")


def salient_units(responses: xr.Dataset, word: object, *, count: int = 4) -> xr.DataArray:
    """The units that answer most to a word: as `salient_words`, the other way round; dims (unit,)."""
    means = responses["response"].sel(word=word)
    ordered = means[np.argsort(-means.values, kind="stable")]
    positive = ordered[ordered.values > SILENT][:count]
    negative = ordered[ordered.values < -SILENT][-count:]
    return xr.concat([positive, negative], dim="unit")


def _is_one_hot(values: Floats, known: npt.NDArray[np.bool_]) -> bool:
    rows = values[known.all(axis=2)]
    return bool(len(rows) and np.isin(rows, (0.0, 1.0)).all() and (rows.sum(axis=1) == 1).all())


def _most_frequent(words: Ints, reached: npt.NDArray[np.bool_], n_words: int, top: int) -> tuple[Ints, Ints]:
    """Words recoded by rank, and the codes that rank stands for; equally frequent words keep their order."""
    seen = np.where(reached[..., np.newaxis], words, -1)
    counts = np.bincount(seen[seen >= 0], minlength=n_words)
    chosen = np.argsort(-counts, kind="stable")[:top]
    chosen = chosen[counts[chosen] > 0].astype(np.int64)
    ranks = np.full(n_words + 1, -1, dtype=np.int64)  # the last entry answers for -1
    ranks[chosen] = np.arange(len(chosen))
    return ranks[words], chosen


def _sampled(sample: Floats, group: Floats, before: int, size: int, rng: np.random.Generator) -> Floats:
    """The reservoir after ``group`` came by, of which ``before`` others had come."""
    if not size:
        return sample
    free = max(0, size - len(sample))
    grown = np.concatenate([sample, group[:free].astype(np.float32)])
    rest = group[free:]
    if len(rest):
        slots = rng.integers(0, np.arange(before + free, before + len(group)) + 1)
        taken = slots < size
        grown[slots[taken]] = rest[taken]
    return grown
