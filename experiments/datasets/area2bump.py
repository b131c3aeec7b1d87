"""Spiking activity during reaches in eight directions: Area2_Bump from its NWB file, and a synthetic stand-in for it.

Area2_Bump (Chowdhury, Glaser and Miller 2020; in the Neural Latents Benchmark, Pei et al. 2021; DANDI 000127): neurons
in area 2 of a macaque's somatosensory cortex, while it reaches to targets in eight directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiddenscope.errors import MissingExtraError
from hiddenscope.experiments.datasets.sequences import Sequences, Split

DIRECTIONS = 8
BEFORE, AFTER = 0.1, 0.5
"""Seconds before and after the onset of the movement: 600 steps of 1 ms, as the benchmark aligns them."""
STEPS = 600
WIDTH = 0.04
"""Standard deviation in seconds of the Gaussian that turns spikes into rates. Ours."""

Floats = npt.NDArray[np.float32]


def load_area2bump(path: Path, *, every_step: int = 6) -> Split:
    """Active reaches of an Area2_Bump file, as smoothed firing rates around the onset of the movement.

    Taken are trials whose direction and onset are known, in which the monkey reached by itself (``ctr_hold_bump``
    false), and whose ``split`` is not ``"none"``. Trials of ``split`` ``"train"`` train, the others are held out; a
    file that does not tell is split in order, three fifths to train, as in the paper.

    Args:
        path: the NWB file, which is an HDF5 file.
        every_step: of the 600 steps of 1 ms, that are kept.

    Returns:
        Inputs (trial, step, neuron) in spikes per second; the direction in eighths of a turn as label.

    Raises:
        MissingExtraError: h5py is not installed.
        ValueError: the file has no spikes, or no trials with the columns that are needed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "files", "reading NWB files") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; expected the NWB file of Area2_Bump (DANDI 000127)")
    with h5py.File(path) as file:
        spikes = _spikes(file, path)
        trials = _trials(file, path)
    onsets = trials["move_onset_time"].astype(np.float64)
    angles = trials["cond_dir"].astype(np.float64)
    taken = np.isfinite(onsets) & np.isfinite(angles) & ~trials["ctr_hold_bump"].astype(bool)
    split = trials.get("split")
    if split is not None:
        taken &= split != "none"
    if not taken.any():
        raise ValueError(f"{path} has no active reach with a known onset and direction")
    inputs = firing_rates(spikes, onsets[taken])[:, every_step - 1 :: every_step]
    labels = np.round(angles[taken] / (360 / DIRECTIONS)).astype(np.int64) % DIRECTIONS
    number = np.flatnonzero(taken)
    trains = split[taken] == "train" if split is not None else np.arange(len(number)) < 0.6 * len(number)
    data = Sequences(
        name="Area2_Bump",
        inputs=np.ascontiguousarray(inputs),
        labels=labels,
        label_names=direction_names(),
        feature_names=tuple(f"neuron {neuron}" for neuron in range(len(spikes))),
        groups=number.astype(np.int64),
    )
    if trains.all() or not trains.any():
        raise ValueError(
            f"{path} leaves one side of the split empty: {int(trains.sum())} of {len(trains)} trials train"
        )
    return Split(data.subset(trains), data.subset(~trains))


def firing_rates(spikes: list[npt.NDArray[np.float64]], onsets: npt.NDArray[np.floating]) -> Floats:
    """Spikes in bins of 1 ms around each onset, smoothed by a Gaussian, in spikes per second.

    Args:
        spikes: times of each neuron's spikes, in seconds.
        onsets: in seconds; shape (trial,).

    Returns:
        Shape (trial, 600, neuron). Spikes up to four standard deviations outside of the window count as well.
    """
    from scipy.ndimage import gaussian_filter1d

    margin = 4 * WIDTH
    bins = round((BEFORE + AFTER + 2 * margin) * 1000)
    rates = np.empty((len(onsets), STEPS, len(spikes)), np.float32)
    for trial, onset in enumerate(onsets):
        counts = np.zeros((bins, len(spikes)))
        for neuron, times in enumerate(spikes):
            within = np.floor((times - (onset - BEFORE - margin)) * 1000 + 1e-6)
            chosen = within[(within >= 0) & (within < bins)].astype(int)
            np.add.at(counts[:, neuron], chosen, 1.0)
        smooth = gaussian_filter1d(counts, WIDTH * 1000, axis=0, truncate=4.0, mode="constant")
        start = round(margin * 1000)
        rates[trial] = 1000 * smooth[start : start + STEPS]
    return rates


def synthetic_reaches(
    *, neurons: int = 65, train: int = 115, held_out: int = 78, every_step: int = 6, seed: int = 0
) -> Split:
    """Synthetic spikes of the same shape as Area2_Bump: not data of any animal.

    Each reach has one of eight directions, in turn, and a bell-shaped speed v(t) = exp(-((t - 0.25 s) / 0.1 s)²/2)
    that is delayed by 0.02 s times a standard normal number, and scaled by exp(0.15 z) of another. Each neuron has a
    preferred direction, uniform; a baseline rate, lognormal about 12 spikes per second (sigma 0.5); and a depth,
    lognormal about 15 spikes per second (sigma 0.5). It fires as an inhomogeneous Poisson process with rate
    max(0, baseline + depth · v(t - delay) · cos(direction - preferred)), where the neuron's own delay is uniform in
    0 .. 0.1 s (area 2 follows the movement). Spikes are smoothed as those of the file are.

    Args:
        neurons: how many.
        train: trials to train.
        held_out: trials that are held out.
        every_step: of the 600 steps, that are kept.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    preferred = rng.uniform(0, 2 * np.pi, neurons)
    baseline = 12 * np.exp(rng.normal(0, 0.5, neurons))
    depth = 15 * np.exp(rng.normal(0, 0.5, neurons))
    lag = rng.uniform(0, 0.1, neurons)
    count = train + held_out
    labels = np.arange(count) % DIRECTIONS
    margin = 4 * WIDTH
    times = np.arange(-margin - BEFORE, AFTER + margin, 0.001) + 0.0005
    spikes: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(neurons)]
    onsets = 10.0 * (1 + np.arange(count))
    for trial, label in enumerate(labels):
        shift, gain = 0.02 * rng.normal(), np.exp(0.15 * rng.normal())
        speed = gain * np.exp(-((((times[:, None] - lag - shift) - 0.25) / 0.1) ** 2) / 2)
        tuned = np.cos(2 * np.pi * label / DIRECTIONS - preferred)
        counts = rng.poisson(np.maximum(0, baseline + depth * tuned * speed) * 0.001)
        for neuron in range(neurons):
            spikes[neuron].append(onsets[trial] + np.repeat(times, counts[:, neuron]))
    inputs = firing_rates([np.concatenate(one) for one in spikes], onsets)[:, every_step - 1 :: every_step]
    data = Sequences(
        name="synthetic reaches",
        inputs=np.ascontiguousarray(inputs),
        labels=labels.astype(np.int64),
        label_names=direction_names(),
        feature_names=tuple(f"neuron {neuron}" for neuron in range(neurons)),
        groups=np.arange(count, dtype=np.int64),
    )
    trains = np.arange(count) < train
    return Split(data.subset(trains), data.subset(~trains))


def direction_names() -> tuple[str, ...]:
    """The eight directions in degrees."""
    return tuple(f"{360 * number // DIRECTIONS}\N{DEGREE SIGN}" for number in range(DIRECTIONS))


def _spikes(file: Any, path: Path) -> list[npt.NDArray[np.float64]]:
    """Spike times of every neuron, from NWB's ragged column."""
    if "units/spike_times" not in file or "units/spike_times_index" not in file:
        raise ValueError(f"{path} holds no units/spike_times; expected the NWB file of Area2_Bump")
    times = np.asarray(file["units/spike_times"], dtype=np.float64)
    ends = np.asarray(file["units/spike_times_index"], dtype=np.int64)
    return np.split(times, ends[:-1])


def _trials(file: Any, path: Path) -> dict[str, npt.NDArray[Any]]:
    needed = ("move_onset_time", "cond_dir", "ctr_hold_bump")
    table = file.get("intervals/trials")
    missing = [name for name in needed if table is None or name not in table]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)} in intervals/trials; expected the file of Area2_Bump")
    found = {name: np.asarray(table[name]) for name in needed}
    if "split" in table:
        found["split"] = np.array([_text(value) for value in table["split"][:]])
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
