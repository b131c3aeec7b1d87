"""Cutting a long sequence where its kind changes: at the places where a sequence model fails to predict it.

The procedure of the public code for Su & Shlizerman (2020, Frontiers in AI 3:70): a window slides along the sequence,
an encoder reads its first part and a decoder predicts the second. Where the prediction fails, the sequence is cut at
the step of the largest error, and the window starts anew at the cut. The decoder's states are then clustered, and steps
without one take the label of their neighbor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.analyses.separability import cosine_clusters

Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Predict = Callable[[Float64], tuple[npt.ArrayLike, npt.ArrayLike]]
"""From what an encoder reads, (step, feature), to the decoder's prediction (step, feature) and states (step, unit)."""


@dataclass(frozen=True)
class Segmentation:
    """A sequence in pieces.

    Attributes:
        cuts: steps at which a new piece begins, growing; the first piece begins at 0 without being listed.
        states: shape (step, unit), decoder states; NaN where a step has none.
        starts: shape (window,), the first step of each window.
        losses: shape (window,), mean squared error of each window's prediction.
        errors: shape (step,), mean absolute error of the prediction of each step; NaN where there is none.
    """

    cuts: Codes
    states: Float64
    starts: Codes
    losses: Float64
    errors: Float64


def segment(
    sequence: npt.ArrayLike,
    predict: Predict,
    *,
    encoder_steps: int = 25,
    decoder_steps: int = 25,
    threshold: float = 1.0,
) -> Segmentation:
    """Cut a sequence where the prediction of a window has a mean squared error above ``threshold``.

    Windows follow each other by the decoder's length, so each step is predicted once at most. After a cut the next
    window begins at the cut, and its encoder's steps have no decoder state.

    Args:
        sequence: shape (step, feature), standardized as the model expects: the threshold of 1 is then the error of
            predicting the mean.
        predict: see `Predict`.
        encoder_steps: steps that the encoder reads (the authors: 25, or 50 for long recordings).
        decoder_steps: steps that the decoder predicts.
        threshold: loss above which a window is cut.

    Raises:
        ValueError: the sequence is shorter than one window, or a prediction has another shape.
    """
    frames = np.asarray(sequence, dtype=np.float64)
    window = encoder_steps + decoder_steps
    if frames.ndim != 2 or min(encoder_steps, decoder_steps) < 1 or len(frames) < window:
        raise ValueError(
            f"a sequence (step, feature) of at least {encoder_steps} + {decoder_steps} steps is needed, "
            f"got shape {frames.shape}"
        )
    cuts, starts, losses = [], [], []
    found: dict[int, Float64] = {}
    errors = np.full(len(frames), np.nan)
    start = 0
    while start + window <= len(frames):
        first = start + encoder_steps
        target = frames[first : first + decoder_steps]
        prediction, states = (np.asarray(one, dtype=np.float64) for one in predict(frames[start:first]))
        if prediction.shape != target.shape or len(states) != decoder_steps:
            raise ValueError(f"a prediction of shape {target.shape} was expected, got {prediction.shape}")
        misses = np.abs(prediction - target).mean(axis=1)
        loss = float(((prediction - target) ** 2).mean())
        starts.append(start)
        losses.append(loss)
        good = decoder_steps if loss <= threshold else int(misses.argmax())
        for k in range(good):
            found[first + k] = states[k]
        errors[first : first + decoder_steps] = misses
        if loss > threshold:
            cuts.append(first + good)
            start = first + good
        else:
            start += decoder_steps
    units = next((len(state) for state in found.values()), 0)
    placed = np.full((len(frames), units), np.nan)
    for step, state in found.items():
        placed[step] = state
    return Segmentation(np.array(cuts, np.int64), placed, np.array(starts, np.int64), np.array(losses), errors)


def label_steps(found: Segmentation, clusters: int, *, most_states: int = 3000) -> Codes:
    """The cluster of every step: decoder states clustered as the authors do, other steps as their nearest neighbor.

    A step without a state takes the label of the nearest step that has one, of two the later one within the same
    piece: what an encoder reads after a cut belongs with what is decoded from it.

    Args:
        found: from `segment`.
        clusters: how many kinds there are.
        most_states: more are thinned evenly before clustering, for the distances between all of them are needed.

    Returns:
        Shape (step,), clusters numbered in the order of their first appearance.

    Raises:
        ValueError: fewer decoder states than clusters.
    """
    there = np.flatnonzero(np.isfinite(found.states).all(axis=1)) if found.states.shape[1] else np.zeros(0, np.int64)
    if len(there) < clusters:
        raise ValueError(f"{clusters} clusters need as many decoder states, got {len(there)}; raise the threshold")
    chosen = there[:: -(-len(there) // most_states)]
    codes = in_order_of_appearance(cosine_clusters(found.states[chosen], clusters))
    pieces = np.searchsorted(found.cuts, np.arange(len(found.states)), side="right")
    labels = np.empty(len(found.states), dtype=np.int64)
    for step in range(len(labels)):
        far = np.abs(chosen - step) + 0.5 * (chosen < step)
        same = pieces[chosen] == pieces[step]
        far = np.where(same, far, far + len(labels)) if same.any() else far
        labels[step] = codes[far.argmin()]
    return in_order_of_appearance(labels)


def in_order_of_appearance(codes: npt.ArrayLike) -> Codes:
    """The same groups, numbered 0, 1, … as they first appear.

    >>> in_order_of_appearance([5, 5, 2, 5, 9]).tolist()
    [0, 0, 1, 0, 2]
    """
    _, first, inverse = np.unique(np.asarray(codes), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def best_match(labels: npt.ArrayLike, truth: npt.ArrayLike) -> Codes:
    """The same groups, renumbered to agree with the truth at as many steps as possible; spare groups get new numbers.

    >>> best_match([0, 0, 1, 1], [1, 1, 0, 0]).tolist()
    [1, 1, 0, 0]
    """
    from scipy.optimize import linear_sum_assignment

    found, true = np.asarray(labels), np.asarray(truth)
    groups, classes = np.unique(found), np.unique(true)
    overlap = np.array([[np.sum((found == group) & (true == label)) for label in classes] for group in groups])
    rows, columns = linear_sum_assignment(-overlap)
    names = {int(groups[row]): int(classes[column]) for row, column in zip(rows, columns, strict=True)}
    spare = int(classes.max()) + 1
    for group in groups:
        if int(group) not in names:
            names[int(group)] = spare
            spare += 1
    return np.array([names[int(group)] for group in found], dtype=np.int64)
