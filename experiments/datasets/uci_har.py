"""Human activity recognition from smartphones (UCI HAR; Anguita et al. 2013), from the folder that UCI hands out.

30 subjects, 6 activities, 9 signals at 50 Hz in windows of 128 steps: 7,352 to train, 2,947 of other subjects to test.
The data are in no package: download "UCI HAR Dataset" and name its folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hiddenscope.experiments.datasets.sequences import Sequences, Split, standardize

SIGNALS = tuple(f"{what}_{axis}" for what in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
"""The signals, in the order of the features."""


def load_uci_har(folder: Path) -> Split:
    """The published split, as it is in the files.

    Args:
        folder: ``UCI HAR Dataset``, with ``train``, ``test`` and ``activity_labels.txt``; a folder that holds it will
            do.

    Returns:
        Inputs (sequence, 128, 9), the subject as group, and labels from 0.

    Raises:
        FileNotFoundError: a file of the data set is missing.
        ValueError: the files disagree in their number of sequences, or a label is unknown.
    """
    root = _root(folder)
    names = _activity_names(root / "activity_labels.txt")
    return Split(_part(root, "train", names), _part(root, "test", names))


def uci_har_split(folder: Path) -> Split:
    """The published split, standardized by the training part."""
    return standardize(load_uci_har(folder))


def _root(folder: Path) -> Path:
    places = [folder, folder / "UCI HAR Dataset"]
    for place in places:
        if (place / "activity_labels.txt").is_file():
            return place
    raise FileNotFoundError(
        f"{folder} is not the folder of UCI HAR: expected activity_labels.txt, train and test in it, "
        "as in the archive 'UCI HAR Dataset.zip'"
    )


def _activity_names(path: Path) -> tuple[str, ...]:
    """Names in the order of their numbers, which run from 1."""
    numbered = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    found = {int(number): name.strip().lower().replace("_", " ") for number, name in numbered}
    if sorted(found) != list(range(1, len(found) + 1)):
        raise ValueError(f"{path} must number its activities from 1, got {sorted(found)}")
    return tuple(found[number] for number in sorted(found))


def _part(root: Path, part: str, names: tuple[str, ...]) -> Sequences:
    labels = _numbers(root / part / f"y_{part}.txt").astype(np.int64).ravel() - 1
    subjects = _numbers(root / part / f"subject_{part}.txt").astype(np.int64).ravel()
    signals = [_numbers(root / part / "Inertial Signals" / f"{signal}_{part}.txt") for signal in SIGNALS]
    shapes = {signal.shape for signal in signals}
    if len(shapes) > 1 or len(labels) != len(signals[0]) or len(subjects) != len(labels):
        raise ValueError(
            f"the files of {root / part} must have one row per sequence, got {len(labels)} labels, "
            f"{len(subjects)} subjects and signals of shapes {sorted(shapes)}"
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels of {root / part} must lie in 1..{len(names)}, got up to {labels.max() + 1}")
    return Sequences(
        name="UCI HAR",
        inputs=np.stack(signals, axis=-1).astype(np.float32),
        labels=labels,
        label_names=names,
        feature_names=SIGNALS,
        groups=subjects,
    )


def _numbers(path: Path) -> npt.NDArray[np.float64]:
    """A table of numbers, separated by white space."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the UCI HAR folder")
    return np.loadtxt(path, dtype=np.float64, ndmin=2)
