"""Human motion capture from the installed package pybullet: fifteen clips of one person, such as walking and rolling.

The clips are those of DeepMimic (Peng et al. 2018), as pybullet ships them (zlib licence). The package is optional and
large (103 MB); it is found without being imported, and only its text files are read.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hiddenscope.errors import MissingExtraError

Frames = npt.NDArray[np.float64]

FRAMES_PER_SECOND = 60.0
_PREFIX = "humanoid3d_"
_QUATERNIONS = (4, 8, 12, 16, 21, 25, 30, 35, 39)
"""Where the rotations begin in a frame: root, chest, neck, right hip, ankle and shoulder, left hip, ankle, shoulder."""


def motion_installed() -> bool:
    """Whether the clips are there."""
    return _folder() is not None


def load_motion(*, shortest: float = 4.0) -> dict[str, Frames]:
    """The clips by name, each (frame, feature) at 60 frames per second.

    Features are the height of the hips and all rotations (quaternions whose sign is kept continuous, and angles of knee
    and elbow); where the person stands is left out. Clips that are made to be looped are repeated until they last
    ``shortest`` seconds.

    Raises:
        MissingExtraError: pybullet is not installed.
        ValueError: a file is not such a clip.
    """
    folder = _folder()
    if folder is None:
        raise MissingExtraError("pybullet 3.2.7", "motion", "the motion capture data")
    clips = {}
    for path in sorted(folder.glob(f"{_PREFIX}*.txt")):
        clips[path.stem.removeprefix(_PREFIX).replace("_", " ")] = read_clip(path, shortest=shortest)
    return clips


def read_clip(path: Path, *, shortest: float = 0.0) -> Frames:
    """One clip; see `load_motion`.

    Raises:
        ValueError: the file is not a clip of 44 numbers per frame, the first of which are the frames' durations.
    """
    try:
        told = json.loads(path.read_text())
        frames = np.asarray(told["Frames"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a motion clip: {error}") from None
    if frames.ndim != 2 or frames.shape[1] != 44 or len(frames) < 2:
        raise ValueError(f"{path} is not a motion clip: expected frames of 44 numbers, got shape {frames.shape}")
    frames = continuous(frames)
    at = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])
    times = np.arange(round(at[-1] * FRAMES_PER_SECOND)) / FRAMES_PER_SECOND
    kept = np.r_[2, 4:44]  # height; rotations; not the duration, nor the place on the ground
    evenly = np.stack([np.interp(times, at, frames[:, k]) for k in kept], axis=1)
    if str(told.get("Loop")) == "wrap":
        evenly = np.tile(evenly, (int(np.ceil(shortest * FRAMES_PER_SECOND / len(evenly))) or 1, 1))
    return evenly


def continuous(frames: Frames) -> Frames:
    """The same rotations, each quaternion with the sign that is nearer to the frame before: q and -q are one rotation.

    >>> frames = np.zeros((2, 44))
    >>> frames[:, 4] = [1.0, -1.0]
    >>> continuous(frames)[:, 4].tolist()
    [1.0, 1.0]
    """
    found = frames.copy()
    for start in _QUATERNIONS:
        turns = found[:, start : start + 4]
        flips = np.where(np.einsum("tk,tk->t", turns[1:], turns[:-1]) < 0, -1.0, 1.0)
        turns[1:] *= np.cumprod(flips)[:, None]
    return found


def _folder() -> Path | None:
    package = importlib.util.find_spec("pybullet_data")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "data" / "motions"
    return folder if any(folder.glob(f"{_PREFIX}*.txt")) else None
