"""Shoulder exercises seen by a smartwatch: human-activity data like UCI HAR, from the installed package seglearn.

Ten subjects, seven exercises, accelerometer and gyroscope at 50 Hz (Burns et al. 2018, arXiv:1802.01489; BSD-3).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiddenscope.errors import MissingExtraError
from hiddenscope.experiments.datasets.sequences import Sequences, Split, hold_out_groups, standardize

SEGLEARN_VERSION = "1.2.5"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
HELD_OUT_SUBJECTS = (2, 5, 8)


def load_watch(*, window: int = 128, stride: int = 64) -> Sequences:
    """Windows cut from the 140 recordings, each of one subject doing one exercise.

    Args:
        window: length of a window, in steps of 1/50 s.
        stride: steps from the start of one window to the start of the next; below ``window`` they overlap.

    Returns:
        3605 x 128 x 6 for the defaults, with the subject (1 to 10) as group, in the order of the recordings.

    Raises:
        MissingExtraError: seglearn is not installed.
        ValueError: the file is not the one of seglearn 1.2.5 (its content is checked before it is unpickled), or
            ``window`` or ``stride`` do not fit the recordings.
    """
    recordings = _recordings(_data_file())
    shortest = min(len(recording) for recording in recordings["X"])
    if not 1 <= window <= shortest:
        raise ValueError(f"window must lie in 1..{shortest}, the length of the shortest recording, got {window}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    cut = [windows(recording, window=window, stride=stride) for recording in recordings["X"]]
    counts = [len(pieces) for pieces in cut]
    return Sequences(
        name="watch",
        inputs=np.concatenate(cut),
        labels=np.repeat(np.asarray(recordings["y"], dtype=np.int64), counts),
        label_names=tuple(recordings["y_labels"]),
        feature_names=tuple(recordings["X_labels"]),
        groups=np.repeat(np.asarray(recordings["subject"], dtype=np.int64), counts),
    )


def watch_split(*, held_out: tuple[int, ...] = HELD_OUT_SUBJECTS) -> Split:
    """The watch data with whole subjects held out, standardized by the training subjects."""
    return standardize(hold_out_groups(load_watch(), held_out))


def windows(recording: npt.ArrayLike, *, window: int, stride: int) -> npt.NDArray[np.float32]:
    """All full windows of a recording (step, feature), as (window, step, feature); what is left at the end is dropped.

    >>> windows(np.arange(5.0)[:, None], window=3, stride=2)[:, :, 0].tolist()
    [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    steps = np.asarray(recording, dtype=np.float32)
    views = np.lib.stride_tricks.sliding_window_view(steps, window, axis=0)[::stride]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


def _data_file() -> Path:
    # Found without importing seglearn: all we need of it is one file.
    package = importlib.util.find_spec("seglearn")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError(f"seglearn {SEGLEARN_VERSION}", "data", "the watch data set")
    return Path(package.submodule_search_locations[0]) / "data" / "watch_dataset.npy"


def _recordings(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:  # the file holds a pickle, which could run anything
        raise ValueError(
            f"{path} is not the watch data of seglearn {SEGLEARN_VERSION}: expected sha256 {SHA256}, got {digest}; "
            f"pip install --force-reinstall seglearn=={SEGLEARN_VERSION}"
        )
    recordings: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return recordings
