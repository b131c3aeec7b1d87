"""A sentence as RNNVis draws it: what each memory chip holds at each word, what it gained and lost, what it kept.

A memory chip is a cluster of units. Source of all formulas: RNNVis (Ming et al. 2017), from its published code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

Floats = npt.NDArray[np.floating[Any]]

LEAST_SCALE = 0.1
"""The scale of the bars never ends below this."""


def sentence_glyphs(states: npt.ArrayLike, clusters: npt.ArrayLike) -> xr.Dataset:
    """The glyphs of one sequence, from its states and the cluster of each unit.

    Args:
        states: hidden or cell states, shape (step, unit), finite; the state before the first step is 0.
        clusters: the label of each unit, shape (unit,); units labeled -1 are in no chip.

    Returns:
        Dims (step, cluster), clusters in growing order of their labels; sums over the units of a cluster, and ``size``
        (cluster), the number of its units, to divide them by:
        ``positive`` and ``negative``: the sums of positive and of negative states, P and Q;
        ``positive_change`` and ``negative_change``: how far P and Q moved, from 0 at first;
        ``preserved``: the share of the former step's state that was kept, see `preserved_ratio`; 0 at first;
        ``link``: the mean update of the cluster's units, (P + Q's change) / size.

    Raises:
        ValueError: other shapes, or states that are not finite.

    >>> glyphs = sentence_glyphs([[1.0, -2.0, 3.0, 0.5], [0.5, -3.0, -1.0, 2.0]], [0, 0, 0, 0])
    >>> round(float(glyphs["preserved"][1, 0]), 4)
    0.4615
    """
    values = np.asarray(states, dtype=np.float64)
    labels = np.asarray(clusters)
    if values.ndim != 2 or labels.shape != values.shape[1:]:
        raise ValueError(
            f"glyphs need states (step, unit) and one cluster per unit, got {values.shape}, {labels.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("glyphs need finite states; cut the sequence where it ends")
    chips = np.unique(labels[labels >= 0])
    within = (labels[:, np.newaxis] == chips).astype(float)  # (unit, cluster)
    positive = np.maximum(values, 0) @ within
    negative = np.minimum(values, 0) @ within
    before = np.vstack([np.zeros((1, values.shape[1])), values[:-1]])[: len(values)]
    kept = kept_states(before, values)
    held = np.abs(before) @ within
    preserved = np.divide(np.abs(kept) @ within, held, out=np.zeros_like(held), where=held > 0)
    start = np.zeros((1, len(chips)))
    positive_change = np.diff(positive, axis=0, prepend=start)
    negative_change = np.diff(negative, axis=0, prepend=start)
    size = within.sum(axis=0)
    dims = ("step", "cluster")
    return xr.Dataset(
        {
            "positive": (dims, positive),
            "negative": (dims, negative),
            "positive_change": (dims, positive_change),
            "negative_change": (dims, negative_change),
            "preserved": (dims, preserved),
            "link": (dims, (positive_change + negative_change) / size),
            "size": (("cluster",), size.astype(np.int64)),
        },
        coords={"step": np.arange(len(values)), "cluster": chips},
    )


def kept_states(before: npt.ArrayLike, now: npt.ArrayLike) -> Floats:
    """What remains of a state: the smaller of the two where both have one sign, else 0.

    >>> kept_states([1.0, -2.0, 3.0, 0.5], [0.5, -3.0, -1.0, 2.0]).tolist()
    [0.5, -2.0, 0.0, 0.5]
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(now, dtype=np.float64)
    return np.where(
        (old > 0) & (new > 0), np.minimum(old, new), np.where((old < 0) & (new < 0), np.maximum(old, new), 0.0)
    )


def preserved_ratio(before: npt.ArrayLike, now: npt.ArrayLike) -> float:
    """The share of a state that one step kept: what remains, over what there was, in absolute values; 0 of nothing.

    >>> preserved_ratio([2.0, -4.0], [1.0, -2.0])
    0.5
    """
    held = float(np.abs(np.asarray(before, dtype=np.float64)).sum())
    return float(np.abs(kept_states(before, now)).sum()) / held if held > 0 else 0.0


def glyph_scale(*sentences: xr.Dataset) -> float:
    """Where the bars' axis ends, shared by all given sentences: the largest mean, with headroom, in tenths.

    Bars and what was lost below or above them are counted, a tenth is added, and the sum rounded up to a tenth; at
    least `LEAST_SCALE`.

    >>> glyph_scale(sentence_glyphs([[0.5]], [0]))
    0.6
    """
    largest = 0.0
    for glyphs in sentences:
        for state, change in (("positive", "positive_change"), ("negative", "negative_change")):
            before = glyphs[state] - glyphs[change]
            for sums in (glyphs[state], before):
                largest = max(largest, float(np.abs(sums / glyphs["size"]).max()) if sums.size else 0.0)
    return max(LEAST_SCALE, math.ceil(round(largest * 1.1 * 10, 9)) / 10)
