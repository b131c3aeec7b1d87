"""Small made files in the formats of UCI HAR and of Area2_Bump."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiddenscope.experiments.datasets.uci_har import SIGNALS

Floats = npt.NDArray[np.float64]


def write_uci(folder: Path, *, per_class: int = 2, seed: int = 0) -> dict[str, Floats]:
    """A folder like UCI's, with ``per_class`` windows of each of six activities per part; the inputs that it holds."""
    rng = np.random.default_rng(seed)
    root = folder / "UCI HAR Dataset"
    names = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
    written = {}
    for part, first_subject in (("train", 1), ("test", 20)):
        place = root / part / "Inertial Signals"
        place.mkdir(parents=True)
        labels = np.tile(np.arange(1, 7), per_class)
        phase = np.arange(128) * 0.05
        values = rng.normal(0, 0.3, (len(labels), 128, 9)) + np.sin(labels[:, None, None] * phase[:, None])
        for number, signal in enumerate(SIGNALS):
            rows = ["  " + "  ".join(f"{value: .7e}" for value in row) for row in values[:, :, number]]
            (place / f"{signal}_{part}.txt").write_text("\n".join(rows) + "\n")
        (root / part / f"y_{part}.txt").write_text("".join(f"{label}\n" for label in labels))
        subjects = first_subject + np.arange(len(labels)) // 6
        (root / part / f"subject_{part}.txt").write_text("".join(f"{subject}\n" for subject in subjects))
        written[part] = values
    (root / "activity_labels.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    return written


def write_nwb(path: Path, *, trials: int = 48, neurons: int = 6, without: str = "", seed: int = 0) -> dict[str, Any]:
    """A file laid out like Area2_Bump: every 4th trial is a bump, and every trial lasts for 2 s.

    In active trials each neuron fires at a rate that depends on the direction from 0 to 0.3 s after the onset.
    """
    import h5py

    rng = np.random.default_rng(seed)
    bump = np.arange(trials) % 4 == 3
    angles = 45.0 * (np.arange(trials) // 4 % 8)
    onsets = np.where(bump, np.nan, 10.0 + 2.0 * np.arange(trials))
    times: list[list[float]] = [[] for _ in range(neurons)]
    for trial in np.flatnonzero(~bump):
        for neuron in range(neurons):
            rate = 40 * (1 + np.cos(np.deg2rad(angles[trial]) - 2 * np.pi * neuron / neurons))
            count = rng.poisson(rate * 0.3)
            times[neuron] += sorted(onsets[trial] + rng.uniform(0, 0.3, count))
    split = np.array([b"none" if bump[i] else (b"val" if i % 3 == 0 else b"train") for i in range(trials)])
    columns = {"move_onset_time": onsets, "cond_dir": angles, "ctr_hold_bump": bump, "split": split}
    with h5py.File(path, "w") as file:
        file["units/spike_times"] = np.concatenate(times)
        file["units/spike_times_index"] = np.cumsum([len(one) for one in times])
        for name, values in columns.items():
            if name != without:
                file[f"intervals/trials/{name}"] = values
    return {"onsets": onsets, "angles": angles, "bump": bump, "split": split, "times": times}
