"""Labeled sequences of equal length, their split into training and held-out parts, and their standardization."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sequences:
    """Sequences for a classifier.

    Attributes:
        name: what the data set is called on screen.
        inputs: float32 array (sequence, step, feature).
        labels: class number per sequence, ``0 .. len(label_names) - 1``.
        label_names: one name per class.
        feature_names: one name per feature.
        groups: who or what each sequence comes from (a subject, a recording). Sequences of one group resemble each
            other, so a group belongs to one side of a split only.
    """

    name: str
    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    label_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    groups: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, chosen: npt.NDArray[np.bool_]) -> Sequences:
        """The sequences where ``chosen`` is true."""
        return replace(self, inputs=self.inputs[chosen], labels=self.labels[chosen], groups=self.groups[chosen])


@dataclass(frozen=True)
class Split:
    """What a model learns from, and what it is judged on."""

    train: Sequences
    held_out: Sequences


def hold_out_groups(data: Sequences, groups: Collection[int]) -> Split:
    """Split by group: all sequences of ``groups`` are held out, all others train.

    Windows cut at random from the recordings of the same subjects would leak: neighbors overlap, and a model that
    recognizes the subject looks better than it is.

    Raises:
        ValueError: a group does not occur in the data, or nothing would be left on one side.
    """
    unknown = sorted(set(groups) - set(data.groups.tolist()))
    if unknown:
        raise ValueError(f"groups {unknown} do not occur in {data.name}; it has {sorted(set(data.groups.tolist()))}")
    held_out = np.isin(data.groups, sorted(groups))
    if held_out.all() or not held_out.any():
        raise ValueError(f"holding out groups {sorted(groups)} of {data.name} leaves one side of the split empty")
    return Split(data.subset(~held_out), data.subset(held_out))


def standardize(split: Split) -> Split:
    """Both parts shifted and scaled per feature, with the mean and deviation of the training part alone.

    A feature that never varies in training is only shifted.
    """
    mean = split.train.inputs.mean(axis=(0, 1), dtype=np.float64)
    deviation = split.train.inputs.std(axis=(0, 1), dtype=np.float64)
    deviation[deviation == 0] = 1.0

    def scaled(part: Sequences) -> Sequences:
        return replace(part, inputs=((part.inputs - mean) / deviation).astype(np.float32))

    return Split(scaled(split.train), scaled(split.held_out))
