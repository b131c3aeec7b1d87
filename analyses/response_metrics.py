"""Numbers that say how a unit answers a step and a sine: the metrics of response characterization.

The quantities are those of control engineering that Hasani et al. (2018, arXiv:1809.03864) put to the units of an LSTM.
The rules for what counts as settled, and the lock-in for the sine, are ours. A number that is not defined is NaN, and a
flag says why.

Steps are counted from the last state before the change: the first state that has seen the new input is step 1. A leaky
unit ``h = a h + (1 - a) u`` then follows ``1 - a**n``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

Floats = npt.NDArray[np.float64]

STEP_METRICS = ("settling_time", "delay_time", "rise_time", "overshoot", "change", "amplitude")
SINE_METRICS = ("gain", "phase", "lag", "distortion", "correlation", "peak_frequency", "sine_amplitude")

TOLERANCE = 0.10
"""Half the width of the band in which a response counts as settled, as a share of its change (the paper's 10 %)."""

SMALLEST = 1e-4
"""Responses below this count as none: a ten-thousandth of what a hidden state can be."""


def step_metrics(
    states: xr.DataArray | npt.ArrayLike,
    *,
    switch: int,
    tolerance: float = TOLERANCE,
    smallest: float = SMALLEST,
    bound: float | None = 1.0,
) -> xr.Dataset:
    """How states answer an input that changes once.

    With ``y0`` the state before the change, and the final value ``y`` the mean over the last tenth of the steps:

    - ``initial``, ``final``, and ``change``, final minus initial;
    - ``amplitude``: the largest value after the change;
    - ``settling_time``: steps until the state is, for good, within ``tolerance * |change|`` of the final value;
    - ``delay_time``: steps until half of the change; ``rise_time``: from a tenth to nine tenths of it;
    - ``overshoot``: how far the state goes beyond the final value, as a share of the change, at least 0;
    - ``flag``: why numbers are missing, else ``""``. ``"diverged"``: no longer finite. ``"dead"``: no response larger
      than ``smallest``. ``"saturated"``: the same, with the state beyond 99 % of its bound. ``"no change"``: a response
      that ends where it began. ``"not at rest"``: it still moved before the change by more than a tenth of the band, so
      the rest was too short. ``"not settled"``: over the last tenth of the steps it varies by more than 5 % of the
      change (standard deviation), or since the tenth before that its mean has moved by a tenth of the band.

    Args:
        states: (unit, step), or a named array of any dims with ``step`` among them.
        switch: how many of the steps come before the change.
        tolerance: see ``settling_time``; usual are 0.10, 0.05 and 0.02.
        smallest: see ``flag``.
        bound: what the states cannot exceed, 1 for hidden states; None where there is no such bound.

    Raises:
        ValueError: fewer than 2 steps before the change or 20 after it, or numbers out of range.

    >>> leaky = np.concatenate([np.zeros(10), 1 - 0.9 ** np.arange(1, 301)])
    >>> found = step_metrics([leaky], switch=10)
    >>> found["settling_time"].item(), found["delay_time"].item(), found["overshoot"].item() < 1e-9
    (22.0, 7.0, True)
    """
    values, dims, coords = _states(states)
    if not 2 <= switch <= values.shape[-1] - 20:
        raise ValueError(
            f"a step response needs 2 steps before the change and 20 after, got {switch} of {values.shape}"
        )
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
    finite = np.asarray(np.isfinite(values).all(axis=-1))
    values = np.where(finite[..., None], values, 0.0)
    before, after = values[..., :switch], values[..., switch:]
    tenth = after.shape[-1] // 10
    last, previous = after[..., -tenth:], after[..., -2 * tenth : -tenth]
    initial, final = before[..., -1], last.mean(axis=-1)
    change = final - initial
    scale = np.abs(change)
    moved = np.ptp(before[..., -max(2, switch // 10) :], axis=-1)
    drift = np.abs(final - previous.mean(axis=-1))
    silent = np.abs(after - initial[..., None]).max(axis=-1) < smallest
    flag = _flags(
        {
            "diverged": ~finite,
            "saturated": silent & _at_bound(values, bound),
            "dead": silent,
            "not at rest": moved > 0.1 * tolerance * np.maximum(scale, smallest),
            "not settled": (last.std(axis=-1) > 0.05 * np.maximum(scale, smallest))
            | (drift > 0.1 * tolerance * np.maximum(scale, smallest)),
            "no change": scale < smallest,
        }
    )
    share = (after - initial[..., None]) / np.where(scale < smallest, np.nan, change)[..., None]
    outside = np.abs(share - 1) > tolerance + 1e-9
    found = {
        "initial": initial,
        "final": final,
        "change": change,
        "amplitude": after.max(axis=-1),
        "settling_time": _after_last(outside),
        "delay_time": _first(share >= 0.5 - 1e-9),
        "rise_time": _first(share >= 0.9 - 1e-9) - _first(share >= 0.1 - 1e-9),
        "overshoot": np.maximum(share.max(axis=-1) - 1, 0.0),
    }
    undefined = {
        "initial": np.isin(flag, ("diverged", "not at rest")),
        "final": np.isin(flag, ("diverged", "not settled")),
        "amplitude": flag == "diverged",
        "change": np.isin(flag, ("diverged", "not at rest", "not settled")),
    }
    for name in found:
        found[name] = np.where(undefined.get(name, flag != ""), np.nan, found[name])
    return xr.Dataset({name: (dims, numbers) for name, numbers in {**found, "flag": flag}.items()}, coords)


def sine_metrics(
    states: xr.DataArray | npt.ArrayLike,
    *,
    period: int,
    amplitude: float = 1.0,
    smallest: float = SMALLEST,
    bound: float | None = 1.0,
) -> xr.Dataset:
    """How states follow a sine, by a lock-in over whole periods.

    With ``z = (2 / M) sum over t of y[t] exp(-i w t)``, ``w = 2 pi / period``, and the same for the input
    ``amplitude * sin(w t)``:

    - ``gain``: ``|z of the state| / |z of the input|``;
    - ``phase``: of their ratio, in degrees, in (-180, 180]; negative where the state lags;
    - ``lag``: ``-phase * period / 360``, in steps;
    - ``distortion``: the power at all other frequencies against that at this one, as a ratio of amplitudes (total
      harmonic distortion): 0 for a linear unit;
    - ``correlation``: of input and state, means removed;
    - ``peak_frequency``: where the power spectrum of the state is largest, in cycles per step;
    - ``sine_amplitude``: the largest value of the state;
    - ``flag``: why numbers are missing, else ``""``: ``"diverged"``, ``"dead"`` or ``"saturated"`` as in
      `step_metrics`; ``"other frequencies"``: it answers, but not at the frequency of the input. A unit that cycles by
      itself is not flagged: its distortion is large.

    Args:
        states: as in `step_metrics`; a whole number of periods, the first step being the one that saw ``sin(0)``.
        period: of the input, in steps.
        amplitude: of the input.
        smallest: responses of a smaller amplitude count as none.
        bound: as in `step_metrics`.

    Raises:
        ValueError: not a whole number of periods, or a period below 3.
    """
    values, dims, coords = _states(states)
    steps = values.shape[-1]
    if period < 3 or steps < period or steps % period:
        raise ValueError(f"a sine response needs whole periods of 3 steps or more, got {steps} steps, period {period}")
    if not amplitude > 0:
        raise ValueError(f"the amplitude of the input must be above 0, got {amplitude}")
    finite = np.asarray(np.isfinite(values).all(axis=-1))
    values = np.where(finite[..., None], values, 0.0)
    angle = 2 * np.pi * np.arange(steps) / period
    given = amplitude * np.sin(angle)
    reference = np.exp(-1j * angle) * 2 / steps
    answer = values @ reference
    ratio = answer / (given @ reference)
    centered = values - values.mean(axis=-1, keepdims=True)
    power = (centered**2).mean(axis=-1)
    here = np.abs(answer) ** 2 / 2
    silent = np.abs(centered).max(axis=-1) < smallest
    weak = np.abs(answer) < smallest
    flag = _flags(
        {"diverged": ~finite, "saturated": silent & _at_bound(values, bound), "dead": silent, "other frequencies": weak}
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        distortion = np.sqrt(np.maximum(power - here, 0.0) / here)
        correlation = (centered @ given) / np.sqrt((centered**2).sum(axis=-1) * (given**2).sum())
    phase = np.degrees(np.angle(ratio))
    phase = np.where(phase <= -180, 180.0, phase)
    spectrum = np.abs(np.fft.rfft(centered, axis=-1))
    spectrum[..., 0] = 0.0
    found = {
        "gain": np.abs(ratio),
        "phase": phase,
        "lag": -phase * period / 360,
        "distortion": distortion,
        "correlation": correlation,
        "peak_frequency": spectrum.argmax(axis=-1) / steps,
        "sine_amplitude": values.max(axis=-1),
    }
    undefined = {
        "gain": flag == "diverged",
        "sine_amplitude": flag == "diverged",
        "correlation": np.isin(flag, ("diverged", "dead", "saturated")),
        "peak_frequency": np.isin(flag, ("diverged", "dead", "saturated")),
    }
    for name in found:
        found[name] = np.where(undefined.get(name, flag != ""), np.nan, found[name])
    return xr.Dataset({name: (dims, numbers) for name, numbers in {**found, "flag": flag}.items()}, coords)


def unwrapped(phase: npt.ArrayLike) -> Floats:
    """Phases (…, period), in degrees, periods growing, without jumps of a turn, from the longest period down.

    A phase counts as continued where it is nearest to that of the next longer period; NaN stays NaN.

    >>> unwrapped([90.0, np.nan, -170.0, -80.0])
    array([-270.,   nan, -170.,  -80.])
    """
    phases = np.array(phase, dtype=np.float64)
    last = phases[..., -1].copy()
    for at in reversed(range(phases.shape[-1])):
        here = phases[..., at]
        turns = np.where(np.isnan(last) | np.isnan(here), 0.0, np.round((here - last) / 360))
        phases[..., at] = here - 360 * turns
        last = np.where(np.isnan(here), last, phases[..., at])
    return phases


def _states(states: xr.DataArray | npt.ArrayLike) -> tuple[Floats, tuple[str, ...], dict[str, xr.DataArray]]:
    """The values, step last; the names of the other axes, and their coordinates."""
    if isinstance(states, xr.DataArray):
        if "step" not in states.dims:
            raise ValueError(f'states need a dim "step", got {states.dims}')
        named = states.transpose(..., "step")
        dims = tuple(str(dim) for dim in named.dims[:-1])
        coords = {dim: named.coords[dim] for dim in dims if dim in named.coords}
        return np.asarray(named.values, dtype=np.float64), dims, coords
    found = np.asarray(states, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"states need axes (unit, step), got shape {found.shape}")
    return found, ("unit",), {}


def _at_bound(states: Floats, bound: float | None) -> npt.NDArray[np.bool_]:
    if bound is None:
        return np.zeros(states.shape[:-1], dtype=np.bool_)
    return np.asarray(np.abs(states).min(axis=-1) > 0.99 * bound)


def _flags(reasons: dict[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.str_]:
    """The first reason that holds, else nothing."""
    return np.select(list(reasons.values()), list(reasons), default="").astype(np.str_)


def _first(reached: npt.NDArray[np.bool_]) -> Floats:
    """The step, counted from 1, at which something is first true; NaN for never."""
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.nan)


def _after_last(outside: npt.NDArray[np.bool_]) -> Floats:
    """The first step, counted from 1, after which nothing is true any more; NaN where the last one still is."""
    steps = outside.shape[-1]
    back = outside[..., ::-1].argmax(axis=-1)
    first_inside = np.where(outside.any(axis=-1), steps - back + 1.0, 1.0)
    return np.where(first_inside > steps, np.nan, first_inside)
