"""Do two curves over epochs move together, and which one leads?

Curves over a training are smooth, so neighboring epochs are not independent, and the usual p-value of a correlation is
far too small: two unrelated smooth curves look related half of the time. Here the curve is compared with itself shifted
around a circle of epochs, which keeps its smoothness and breaks its relation to the other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

FEWEST_EPOCHS = 8
"""With fewer, no p-value below 0.1 is possible, and nothing is computed."""


@dataclass(frozen=True)
class Association:
    """How two curves go together; NaN (and lag 0) where fewer than `FEWEST_EPOCHS` epochs have both.

    Attributes:
        correlation: Spearman's rank correlation, epoch by epoch.
        p_value: share of circular shifts, the unshifted pair included, with a correlation at least as strong.
        lag: shift in epochs at which the correlation is strongest; positive when the first curve comes first.
        lag_correlation: the correlation there, over the epochs that overlap.
        lag_p_value: share of the circular shifts that are out of the reach of any lag, and the unshifted pair, with a
            correlation at least as strong at their own best lag; so the search for the lag is paid for.
        n_epochs: epochs where both are known.
    """

    correlation: float
    p_value: float
    lag: int
    lag_correlation: float
    lag_p_value: float
    n_epochs: int


def associate(
    one: npt.ArrayLike, other: npt.ArrayLike, *, max_lag: int | None = None, difference: bool = False
) -> Association:
    """Rank correlation of two curves over the same epochs, its significance, and the lag at which it is strongest.

    The test holds for curves that wander about a level: of unrelated ones, 5 to 10 in 100 get a p-value of 0.05 or
    less (30 to 45 with the usual test), and 10 to 15 at the best lag, since a shifted curve has a seam and the curve
    itself has none. Two curves that both drift during the whole training are related by that alone, and get small
    p-values. ``difference=True`` asks whether they rise and fall in the same epochs, and holds for those too.

    Args:
        one: shape (epoch,), such as a mean entropy; NaN where unknown.
        other: shape (epoch,), such as a loss.
        max_lag: longest lag to look at, in epochs; None for a quarter of them.
        difference: compare the changes from epoch to epoch.

    Raises:
        ValueError: the curves differ in length, or ``max_lag`` is negative or leaves fewer than 5 epochs of overlap.
    Source: circular shifts as in Perkel, Gerstein and Moore 1967 and the surrogate tests after them.

    >>> epochs = np.arange(60)
    >>> wave = np.sin(epochs / 3) + 0.3 * np.sin(epochs / 1.1)
    >>> associate(wave[4:], wave[:-4]).lag  # the first is 4 epochs ahead of the second
    4
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"two curves over the same epochs are needed, got shapes {first.shape} and {second.shape}")
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    if difference:
        first, second = np.diff(first), np.diff(second)
    n = len(first)
    reach = n // 4 if max_lag is None else max_lag
    if reach < 0:
        raise ValueError(f"max_lag must not be negative, got {max_lag}")
    if n < FEWEST_EPOCHS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Association(np.nan, np.nan, 0, np.nan, np.nan, n)
    if n - reach < 5:
        raise ValueError(f"max_lag must leave 5 of the {n} epochs where both curves are known, got {max_lag}")
    shifted = np.stack([np.roll(second, shift) for shift in range(n)])  # row 0 is as it was
    plain = _spearman_rows(np.broadcast_to(first, shifted.shape), shifted)
    lags = np.arange(-reach, reach + 1)
    by_lag = np.stack([_at_lag(first, shifted, int(lag)) for lag in lags])
    best = np.nanmax(np.abs(by_lag), axis=0)
    shifts = np.arange(n)
    far = (shifts == 0) | (np.minimum(shifts, n - shifts) > reach)  # a lag would undo the others
    # Among equally strong lags, the shortest.
    chosen = min(np.flatnonzero(np.abs(by_lag[:, 0]) >= best[0] - 1e-12), key=lambda place: abs(lags[place]))
    return Association(
        correlation=float(plain[0]),
        p_value=_share_as_strong(np.abs(plain)),
        lag=int(lags[chosen]),
        lag_correlation=float(by_lag[chosen, 0]),
        lag_p_value=_share_as_strong(best[far]),
        n_epochs=n,
    )


def associate_with_metrics(curve: xr.DataArray, metrics: pd.DataFrame, *, max_lag: int | None = None) -> pd.DataFrame:
    """`associate` a curve with every metric of a run, both their levels and their changes.

    Args:
        curve: dims (epoch,), or more, over which the mean is taken first; such as an intra-step entropy.
        metrics: one column per metric, indexed by epoch, as `Run.metrics` gives them.
        max_lag: see `associate`.

    Returns:
        Two rows per metric, indexed by (metric, of), where ``of`` is ``"level"`` or ``"change"``; the fields of
        `Association` as columns. A relation in levels but not in changes may be no more than two trends.

    >>> epochs = np.arange(20)
    >>> entropy = xr.DataArray(np.sin(epochs), dims="epoch", coords={"epoch": epochs})
    >>> table = associate_with_metrics(entropy, pd.DataFrame({"loss": -np.sin(epochs)}, index=epochs))
    >>> table["correlation"].round(3).tolist()
    [-1.0, -1.0]
    """
    mean = curve.mean([dim for dim in curve.dims if dim != "epoch"], skipna=True)
    aligned = metrics.reindex(mean["epoch"].values)
    rows = {
        (str(name), of): asdict(
            associate(mean.values, aligned[name].to_numpy(), max_lag=max_lag, difference=of == "change")
        )
        for name in aligned.columns
        for of in ("level", "change")
    }
    index = pd.MultiIndex.from_tuples(list(rows), names=["metric", "of"])
    return pd.DataFrame(list(rows.values()), index=index, columns=list(Association.__dataclass_fields__))


def _at_lag(first: Floats, shifted: Floats, lag: int) -> Floats:
    """Correlation of ``first`` with every row of ``shifted``, taken ``lag`` epochs later, over their overlap."""
    n = len(first)
    early, late = slice(0, n - abs(lag)), slice(abs(lag), n)
    ours, theirs = (early, late) if lag >= 0 else (late, early)
    part = shifted[:, theirs]
    return _spearman_rows(np.broadcast_to(first[ours], part.shape), part)


def _spearman_rows(one: Floats, other: Floats) -> Floats:
    """Spearman's correlation of each row with its counterpart; 0 where one of them is constant."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    centered = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    scale = np.sqrt((centered[0] ** 2).sum(axis=1) * (centered[1] ** 2).sum(axis=1))
    product = (centered[0] * centered[1]).sum(axis=1)
    return np.asarray(np.divide(product, scale, out=np.zeros_like(product), where=scale > 0))


def _share_as_strong(strengths: Floats) -> float:
    """Share of values that reach the first, itself included."""
    return float(np.mean(strengths >= strengths[0] - 1e-12))
