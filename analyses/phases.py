"""Phases of a training: where a curve of entropy or geometry turns, and whether it then rises or falls in earnest.

MM-PHATE (Xie et al. 2024) reads its entropies in phases, information processing while they rise and compression while
they fall, by eye. Here a curve is followed by a broken line, and what it claims has to beat noise that wanders as much
as the curve itself does. All choices are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.broken_lines import POLES, SMALLER_POLES, BrokenLine, fit_broken_line, noise_like
from hiddenscope.analyses.entropy import intra_step_entropy

Floats = npt.NDArray[np.float64]

FEWEST_EPOCHS = 12
"""With fewer nothing is claimed."""
MOST_EPOCHS = 128
"""Longer curves are averaged over neighboring epochs first."""
MOST_BENDS = 6
LEAST = 3
"""Fewest epochs between two bends."""
LEVEL = 0.02
"""Of a single curve; strict, so that of 200 controls no more than a twentieth show a phase, by luck either."""
PIECE_LEVEL = 0.05
"""Of each rise or fall, in a curve that as a whole has phases."""
KINDS = ("processing", "compression", "steady")


@dataclass(frozen=True)
class Phase:
    """A stretch of a curve that rises, falls, or does neither in earnest: one piece of its broken line, or several.

    Attributes:
        first: the epoch where it begins.
        last: the epoch where it ends; the next begins there.
        kind: ``"processing"`` (rising), ``"compression"`` (falling), or ``"steady"`` where neither is significant.
        change: of the fitted line from its beginning to its end, in units of the curve.
        p_value: share of the controls, and this curve, whose largest change of a piece is as many standard errors; not
            below that of the whole curve. Of several pieces, the smallest.
    """

    first: float
    last: float
    kind: str
    change: float
    p_value: float


@dataclass(frozen=True)
class Phases:
    """What a curve went through.

    Attributes:
        phases: one after another, from the first epoch to the last; empty where nothing is claimed.
        p_value: share of the controls, and this curve, for which a broken line beats a constant by as much; NaN where
            there was nothing to test.
        line: the broken line at each of `epochs`.
        epochs: the epochs that were looked at.
        correlation: of the noise around the line between neighboring epochs.
    """

    phases: tuple[Phase, ...]
    p_value: float
    line: Floats
    epochs: Floats
    correlation: float

    @property
    def changes(self) -> list[float]:
        """The epochs at which one phase becomes the next."""
        return [phase.first for phase in self.phases[1:]]


def find_phases(
    curve: npt.ArrayLike | xr.DataArray,
    epochs: npt.ArrayLike | None = None,
    *,
    level: float = LEVEL,
    n_controls: int = 199,
    seed: int = 0,
) -> Phases:
    """The phases of one curve.

    A broken line is fitted (`fit_broken_line`), and its gain over a constant compared with that on controls: stationary
    noise without any phase, searched for a line in the same way. How much the noise of a control wanders, and how
    smooth it is, is drawn by how likely that is if all of the curve is noise. So a curve that rises and turns is
    compared with noise that may do so too; nothing is claimed unless the line beats a constant by more than on all but
    a share ``level`` of the controls.

    Of 200 controls of each kind, at most 1 in 20 shows a phase: white noise, entropies of the bifurcation benchmark
    with their epochs shuffled, noise with a correlation of 0.5 to 0.95 from epoch to epoch, white noise averaged over
    10 epochs or smoothed by a Gaussian of 2 or 4. Of random walks, not stationary, 7 in 100 do. The price is that
    a weak rise is not claimed where the curve also wanders: of lines that rise by 5 standard deviations of noise with a
    correlation of 0.8, 1 in 10 is; with 0.5, nearly all.

    Args:
        curve: dims (epoch,) or an array; NaN where unknown.
        epochs: of each value; default the coordinate, else 0, 1, ….
        level: of significance of the curve as a whole; its rises and falls are then judged at `PIECE_LEVEL`.
        n_controls: 199 allow p-values down to 0.005.
        seed: of the controls.

    Raises:
        ValueError: not one curve, or the epochs do not fit.

    >>> epochs = np.arange(60)
    >>> noise = 0.1 * np.random.default_rng(0).normal(size=60)
    >>> found = find_phases(np.minimum(epochs, 40) / 10 + noise, n_controls=49)
    >>> found.changes, [phase.kind for phase in found.phases]
    ([41.0], ['processing', 'steady'])
    """
    x, y = _curve(curve, epochs)
    bends_allowed = min(MOST_BENDS, len(x) // 10)
    nothing = Phases((), np.nan, np.full(len(x), y.mean() if len(y) else np.nan), x, np.nan)
    if len(x) < FEWEST_EPOCHS or np.ptp(y) <= 1e-9 * np.abs(y).max():
        return nothing
    fitted = fit_broken_line(x, y, most_bends=bends_allowed, least=LEAST)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(fitted.noise.size, size=n_controls, p=fitted.noise.ravel())
    pairs = [np.unravel_index(one, fitted.noise.shape) for one in drawn]
    noises = [noise_like(float(POLES[row]), len(x), rng, smaller=float(SMALLER_POLES[column])) for row, column in pairs]
    controls = [fit_broken_line(x, noise, most_bends=bends_allowed, least=LEAST) for noise in noises]
    p_value = _share(np.array([control.gain for control in controls]), fitted.gain)
    found = replace(nothing, p_value=p_value, line=fitted.values, correlation=fitted.correlation)
    if p_value > level:
        return found
    largest = np.array([_significances(control).max() for control in controls])
    ends = x[[0, *fitted.bends.tolist(), len(x) - 1]].tolist()
    pieces = []
    for number, strength in enumerate(_significances(fitted)):
        own, change = max(p_value, _share(largest, strength)), float(fitted.changes[number])
        kind = "steady" if own > PIECE_LEVEL else "processing" if change > 0 else "compression"
        pieces.append(Phase(ends[number], ends[number + 1], kind, change, own))
    return replace(found, phases=_joined(pieces))


def _joined(pieces: Sequence[Phase]) -> tuple[Phase, ...]:
    """Pieces of the same kind that follow each other as one phase; none at all where all are steady."""
    phases: list[Phase] = []
    for piece in pieces:
        if phases and phases[-1].kind == piece.kind:
            last = phases.pop()
            change, p_value = last.change + piece.change, min(last.p_value, piece.p_value)
            piece = Phase(last.first, piece.last, piece.kind, change, p_value)
        phases.append(piece)
    return () if all(phase.kind == "steady" for phase in phases) else tuple(phases)


def _significances(line: BrokenLine) -> Floats:
    """How many standard errors each piece rises or falls."""
    return np.abs(line.changes) / np.maximum(line.errors, np.finfo(np.float64).tiny)


def activation_curves(trace: xr.DataArray) -> dict[str, xr.DataArray]:
    """Curves over epochs that need no picture, each dims (epoch,).

    - ``"intra-step entropy (activations)"``: `intra_step_entropy` of the activations, each node normalized over the
      samples as for MM-PHATE; mean over steps, in nats.
    - ``"spread"``: ln of the standard deviation of a unit over samples and steps; mean over units. It is the entropy of
      a unit's activations if they were normal, up to a constant.
    - ``"change per epoch"``: ln of the root mean square difference from the epoch before, per epoch.

    Args:
        trace: dims (epoch, step, unit, sample).
    """
    values = trace.values.astype(np.float64)
    mean = _known_mean(values, (3,))[..., None]
    deviation = np.sqrt(_known_mean((values - mean) ** 2, (3,)))[..., None]
    nodes = trace.copy(data=np.divide(values - mean, deviation, out=np.zeros_like(values), where=deviation > 0))
    nodes = nodes.where(np.isfinite(values))
    entropy = intra_step_entropy(nodes.reset_coords(drop=True))
    assert isinstance(entropy, xr.DataArray)
    center = _known_mean(values, (1, 3))[:, None, :, None]
    spread = np.sqrt(_known_mean((values - center) ** 2, (1, 3)))
    gaps = np.diff(trace["epoch"].values.astype(np.float64))
    moved = np.sqrt(_known_mean(np.diff(values, axis=0) ** 2, (1, 2, 3))) / gaps
    curves = {
        "intra-step entropy (activations)": entropy.mean("step", skipna=True).values,
        "spread": _known_mean(_log(spread), (1,)),
        "change per epoch": np.append(np.nan, _log(moved)),
    }
    epochs = {"epoch": trace["epoch"].values}
    return {name: xr.DataArray(curve, dims="epoch", coords=epochs, name=name) for name, curve in curves.items()}


def _log(values: Floats) -> Floats:
    return np.asarray(np.log(np.where(values > 0, values, np.nan)))


def _known_mean(values: Floats, axes: tuple[int, ...]) -> Floats:
    """Mean over what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axes)
    return np.asarray(np.where(known, values, 0.0).sum(axis=axes) / np.where(count > 0, count, np.nan))


def phases_of_all(
    curves: Mapping[str, xr.DataArray], *, level: float = 0.05, n_controls: int = 199, seed: int = 0
) -> xr.Dataset:
    """The phases of several curves of one layer, with p-values that pay for having looked at several (Holm 1979).

    Args:
        curves: by name, dims (epoch,) each, all with the same epochs.
        level: of significance, for all curves together.
        n_controls: see `find_phases`.
        seed: see `find_phases`.

    Returns:
        Per curve: ``p_value`` (curve), corrected; ``value`` and ``line`` (curve, epoch); ``phase_first``,
        ``phase_last``, ``phase_change`` and ``phase_p_value`` (curve, phase), NaN past the last phase, and
        ``phase_kind`` (curve, phase), one of `KINDS` or empty. Nothing is claimed for curves above the level.
    """
    found = {name: find_phases(curve, level=level, n_controls=n_controls, seed=seed) for name, curve in curves.items()}
    factors = _holm({name: one.p_value for name, one in found.items()})
    corrected = {name: _corrected(one, factors[name], level) for name, one in found.items()}
    return _dataset(curves, corrected, level=level, n_controls=n_controls, seed=seed)


def _curve(curve: npt.ArrayLike | xr.DataArray, epochs: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    """Epochs and values, known ones only, averaged where there are too many."""
    if epochs is None and isinstance(curve, xr.DataArray) and "epoch" in curve.coords:
        epochs = curve["epoch"].values
    y = np.asarray(curve, dtype=np.float64)
    if y.ndim != 1:
        raise ValueError(f"expected one curve over epochs, got shape {y.shape}")
    x = np.arange(len(y), dtype=np.float64) if epochs is None else np.asarray(epochs, dtype=np.float64)
    if x.shape != y.shape or (np.diff(x) <= 0).any():
        raise ValueError(f"expected {len(y)} growing epochs, one for each value, got {x.shape}")
    known = np.isfinite(y)
    x, y = x[known], y[known]
    together = -(-len(x) // MOST_EPOCHS)
    if together > 1:
        starts = np.arange(0, len(x), together)
        counts = np.diff([*starts, len(x)])
        x, y = x[starts + counts // 2], np.add.reduceat(y, starts) / counts
    return x, y


def _share(controls: Floats, here: float) -> float:
    return float((1 + np.sum(controls >= here)) / (1 + len(controls)))


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """What to multiply each p-value with: how many curves are tested, the strongest of them the most."""
    tested = sorted((name for name, p in p_values.items() if np.isfinite(p)), key=lambda name: p_values[name])
    factors = dict.fromkeys(p_values, 1.0)
    largest = 0.0
    for rank, name in enumerate(tested):
        largest = max(largest, p_values[name] * (len(tested) - rank))
        factors[name] = largest / p_values[name]
    return factors


def _corrected(found: Phases, factor: float, level: float) -> Phases:
    p_value = min(1.0, found.p_value * factor) if np.isfinite(found.p_value) else found.p_value
    if not p_value <= level:
        return replace(found, p_value=p_value, phases=())
    phases = []
    for phase in found.phases:
        own = min(1.0, phase.p_value * factor)
        phases.append(replace(phase, p_value=own, kind=phase.kind if own <= PIECE_LEVEL else "steady"))
    return replace(found, p_value=p_value, phases=_joined(phases))


def _dataset(
    curves: Mapping[str, xr.DataArray], found: Mapping[str, Phases], *, level: float, n_controls: int, seed: int
) -> xr.Dataset:
    names = list(curves)
    epochs = next(iter(curves.values()))["epoch"].values.astype(np.float64) if names else np.zeros(0)
    most = max([1, *(len(one.phases) for one in found.values())])

    def table(field: str) -> Floats:
        rows = [[float(getattr(phase, field)) for phase in found[name].phases] for name in names]
        return np.array([row + [np.nan] * (most - len(row)) for row in rows]).reshape(len(names), most)

    kinds = [[phase.kind for phase in found[name].phases] for name in names]
    lines = [np.interp(epochs, found[name].epochs, found[name].line, left=np.nan, right=np.nan) for name in names]
    values = [curves[name].values.astype(np.float64) for name in names]
    return xr.Dataset(
        {
            "p_value": (("curve",), np.array([found[name].p_value for name in names])),
            "correlation": (("curve",), np.array([found[name].correlation for name in names])),
            "value": (("curve", "epoch"), np.array(values).reshape(len(names), len(epochs))),
            "line": (("curve", "epoch"), np.array(lines).reshape(len(names), len(epochs))),
            "phase_first": (("curve", "phase"), table("first")),
            "phase_last": (("curve", "phase"), table("last")),
            "phase_change": (("curve", "phase"), table("change")),
            "phase_p_value": (("curve", "phase"), table("p_value")),
            "phase_kind": (
                ("curve", "phase"),
                np.array([row + [""] * (most - len(row)) for row in kinds], dtype=np.str_).reshape(len(names), most),
            ),
        },
        coords={"curve": np.array(names, dtype=np.str_), "epoch": epochs},
        attrs={"level": level, "n_controls": n_controls, "seed": seed},
    )
