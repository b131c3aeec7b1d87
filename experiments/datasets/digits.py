"""Handwritten digits read row by row: the small data set, from scikit-learn (1797 images of 8 x 8, BSD-3)."""

from __future__ import annotations

import numpy as np

from hiddenscope.experiments.datasets.sequences import Sequences, Split, hold_out_groups, standardize


def load_digits(*, seed: int = 0) -> Sequences:
    """Every image as a sequence of 8 rows of 8 gray values in 0..16.

    The file does not say who wrote which digit, so the groups are five equal, stratified folds drawn with ``seed``.
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import StratifiedKFold

    images = sklearn_digits()
    labels = np.asarray(images.target, dtype=np.int64)
    folds = np.empty(len(labels), dtype=np.int64)
    splitter = StratifiedKFold(n_splits=5, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(labels, labels)):
        folds[members] = fold
    return Sequences(
        name="digits",
        inputs=np.asarray(images.images, dtype=np.float32),
        labels=labels,
        label_names=tuple(str(name) for name in images.target_names),
        feature_names=tuple(f"column {column}" for column in range(8)),
        groups=folds,
    )


def digits_split() -> Split:
    """Four fifths to train, one fifth held out, standardized by the training part."""
    return standardize(hold_out_groups(load_digits(), (0,)))
