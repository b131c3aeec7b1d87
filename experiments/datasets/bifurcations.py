"""Two groups of units that follow dynamical systems through a bifurcation: a benchmark whose phases are known.

Each group of 3 units reads one planar system. Its parameter mu rises with the epoch and crosses 0 on the way, where a
Hopf system starts to circle and a pitchfork system chooses a side. (The synthetic benchmark of MM-PHATE, Xie et al.
2024, version 2.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import xarray as xr

EPOCHS = 101
STEPS = 80
SAMPLES = 10
UNITS_PER_GROUP = 3

_STEP_LENGTH = 0.1
_NOISE = 0.001

Floats = npt.NDArray[np.float32]
Flow = Callable[[Floats, np.float32], Floats]


@dataclass(frozen=True)
class System:
    """One group's system: its kind, "hopf" or "pitchfork", and the last value of mu, which starts at -1."""

    kind: str
    end: float

    @property
    def crossing(self) -> float:
        """The epoch, a fraction between two, at which mu crosses 0."""
        return (EPOCHS - 1) / (self.end + 1)


@dataclass(frozen=True)
class Scenario:
    """The two groups, which of them are warped, and whether the second copies the states of the first."""

    systems: tuple[System, System]
    warped: tuple[bool, bool] = (False, False)
    copied: bool = False


_HOPF, _PITCHFORK = System("hopf", 2.0), System("pitchfork", 2.0)
_LATE_HOPF, _LATE_PITCHFORK = System("hopf", 3.0), System("pitchfork", 3.0)

SCENARIOS = MappingProxyType(
    {
        "hopf_bif__no_warp": Scenario((_HOPF, _LATE_HOPF)),
        "hopf_bif__warp": Scenario((_HOPF, _LATE_HOPF), warped=(True, True)),
        "pitchfork_bif__no_warp": Scenario((_PITCHFORK, _LATE_PITCHFORK)),
        "pitchfork_bif__warp": Scenario((_PITCHFORK, _LATE_PITCHFORK), warped=(True, True)),
        "hopf_bif__pitchfork_bif__no_warp": Scenario((_HOPF, _PITCHFORK)),
        "hopf_bif__pitchfork_bif__warp": Scenario((_HOPF, _PITCHFORK), warped=(True, True)),
        "hopf_bif__clean_vs_warped": Scenario((_HOPF, _HOPF), warped=(False, True), copied=True),
        "hopf_bif__clean_x2": Scenario((_HOPF, _HOPF)),
    }
)


def simulate(scenario: str, *, seed: int = 24) -> xr.DataArray:
    """The trace of a scenario: 101 epochs, 80 steps, 6 units, 10 samples.

    Args:
        scenario: a name in `SCENARIOS`.
        seed: of all noise and starting points; 24 is the published one.

    Returns:
        Float32, dims (epoch, step, unit, sample), named after the scenario, with coordinate ``group`` ("A" or "B") on
        the units. Attribute ``crossings`` has the epoch at which each group's mu crosses 0.

    Raises:
        ValueError: an unknown scenario.

    >>> simulate("hopf_bif__no_warp").attrs["crossings"]
    (33.333333333333336, 25.0)
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"got scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    chosen = SCENARIOS[scenario]
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 0.6, (SAMPLES, 2)).astype(np.float32)
    first = _simulate_system(chosen.systems[0], start, rng)
    second = first if chosen.copied else _simulate_system(chosen.systems[1], start, rng)
    states = [_warp(states) if warp else states for states, warp in zip((first, second), chosen.warped, strict=True)]
    angle = rng.uniform(0.2 * np.pi, 0.8 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    rng.normal(size=(4, 3))  # drawn and not used by the published generator
    signals = [_signal(group, direction) for group in states]
    values = np.empty((EPOCHS, STEPS, 2 * UNITS_PER_GROUP, SAMPLES), np.float32)
    for epoch in range(EPOCHS):
        for group, signal in enumerate(signals):
            noise = rng.normal(0, _NOISE, (UNITS_PER_GROUP, STEPS, SAMPLES)).astype(np.float32)
            units = slice(group * UNITS_PER_GROUP, (group + 1) * UNITS_PER_GROUP)
            values[epoch, :, units] = np.moveaxis(signal[epoch] + noise, 0, 1)
    return xr.DataArray(
        values,
        dims=("epoch", "step", "unit", "sample"),
        coords={
            "epoch": np.arange(EPOCHS),
            "step": np.arange(STEPS),
            "unit": np.arange(2 * UNITS_PER_GROUP),
            "sample": np.arange(SAMPLES),
            "group": ("unit", ["A"] * UNITS_PER_GROUP + ["B"] * UNITS_PER_GROUP),
        },
        name=scenario,
        attrs={"crossings": tuple(system.crossing for system in chosen.systems)},
    )


def _simulate_system(system: System, start: Floats, rng: np.random.Generator) -> Floats:
    """States after every step of every epoch, shape (epoch, step, sample, 2); they carry over between epochs."""
    flow = _hopf if system.kind == "hopf" else _pitchfork
    parameters = np.linspace(-1.0, system.end, EPOCHS).astype(np.float32)
    noise = rng.normal(0, _NOISE, (EPOCHS, STEPS, SAMPLES, 2)).astype(np.float32)
    states = np.empty((EPOCHS, STEPS, SAMPLES, 2), np.float32)
    state = start
    for epoch, mu in enumerate(parameters):
        for step in range(STEPS):
            state = _runge_kutta(flow, state, mu) + noise[epoch, step]
            states[epoch, step] = state
    return states


def _runge_kutta(flow: Flow, state: Floats, mu: np.float32) -> Floats:
    """One step of the classical fourth-order method."""
    first = flow(state, mu)
    second = flow(state + 0.5 * _STEP_LENGTH * first, mu)
    third = flow(state + 0.5 * _STEP_LENGTH * second, mu)
    fourth = flow(state + _STEP_LENGTH * third, mu)
    return state + (_STEP_LENGTH / 6) * (first + 2 * second + 2 * third + fourth)


def _hopf(state: Floats, mu: np.float32) -> Floats:
    x, y = state[:, 0], state[:, 1]
    growth = mu - (x * x + y * y)
    return np.stack([growth * x - y, x + growth * y], axis=1)


def _pitchfork(state: Floats, mu: np.float32) -> Floats:
    x, y = state[:, 0], state[:, 1]
    return np.stack([mu * x - x * x * x, -2 * y], axis=1)


def _warp(states: Floats) -> Floats:
    x, y = states[..., 0], states[..., 1]
    return np.stack([x + 0.15 * x * y, y + 0.15 * x * x], axis=-1)


def _signal(states: Floats, direction: Floats) -> Floats:
    """What the units of a group read, shape (epoch, step, sample): mostly the radius, a little of a direction."""
    x, y = states[..., 0], states[..., 1]
    return np.asarray(0.2 * (x * direction[0] + y * direction[1]) + 1.2 * np.sqrt(x * x + y * y), np.float32)
