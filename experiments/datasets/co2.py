"""Carbon dioxide over Mauna Loa, week by week: a series to forecast, from the installed package statsmodels.

2,284 weeks from March 1958 to December 2001, in parts per million of dry air (Keeling and Whorf, Scripps Institution of
Oceanography; public domain).
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

WEEKS = 52
AHEAD = 8


@dataclass(frozen=True)
class Forecast:
    """Windows of a series, and what comes some steps after each.

    Attributes:
        inputs: float32 (window, step, 1), each less its own mean, in deviations of the training windows.
        targets: float32 (window, 1), the value to come, less the mean of its window, in the same unit.
    """

    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]


def co2_file() -> Path | None:
    """Where the installed package keeps the series; None without the package, which is not imported."""
    package = importlib.util.find_spec("statsmodels")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "datasets" / "co2" / "co2.csv"
    return path if path.is_file() else None


def load_co2(path: Path) -> npt.NDArray[np.float64]:
    """The series in parts per million, (week,); weeks without a measurement lie on a line between their neighbors.

    Raises:
        ValueError: the file has no columns ``date`` and ``co2``, or no number in it.
    """
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"date", "co2"} <= set(rows[0]):
        raise ValueError(f"{path} needs columns date and co2, got {list(rows[0]) if rows else 'nothing'}")
    values = np.array([float(row["co2"] or "nan") for row in rows])
    known = np.isfinite(values)
    if not known.any():
        raise ValueError(f"{path} holds no measurement")
    return np.asarray(np.interp(np.arange(len(values)), np.flatnonzero(known), values[known]), dtype=np.float64)


def forecast_split(series: npt.ArrayLike, *, weeks: int = WEEKS, ahead: int = AHEAD) -> tuple[Forecast, Forecast]:
    """Windows of the first four fifths to learn from, and of the last fifth to be judged on; none reaches across.

    Args:
        series: (week,).
        weeks: length of a window.
        ahead: how many weeks after the window's last the target lies.

    Raises:
        ValueError: a series too short for a window on either side.

    >>> train, test = forecast_split(np.arange(100.0), weeks=4, ahead=2)
    >>> train.inputs.shape, test.inputs.shape, round(float(train.targets[0, 0] / train.inputs[0, -1, 0]), 3)
    ((75, 4, 1), (15, 4, 1), 2.333)
    """
    values = np.asarray(series, dtype=np.float64)
    border = len(values) * 4 // 5
    if weeks < 2 or ahead < 1 or min(border, len(values) - border) < weeks + ahead:
        raise ValueError(f"{len(values)} weeks are too few for windows of {weeks} and {ahead} weeks ahead")
    cut = [_windows(part, weeks, ahead) for part in (values[:border], values[border:])]
    scale = float(cut[0][0].std()) or 1.0
    train, test = (
        Forecast((inputs / scale).astype(np.float32)[:, :, None], (targets / scale).astype(np.float32)[:, None])
        for inputs, targets in cut
    )
    return train, test


def _windows(
    values: npt.NDArray[np.float64], weeks: int, ahead: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    windows = np.lib.stride_tricks.sliding_window_view(values, weeks + ahead)
    mean = windows[:, :weeks].mean(axis=1, keepdims=True)
    return windows[:, :weeks] - mean, windows[:, -1] - mean[:, 0]
