"""Entropies of a picture over epochs, for the studies that follow them: the page's, else those of a small one."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
from hiddenscope.analyses.thinning import thinned_trace
from hiddenscope.run import Run

PICTURE = "mmphate"
"""The method under which the page stores its picture."""
SMALL_EPOCHS, SMALL_STEPS = 64, 16


def picture_of(run: Run, layer: str) -> xr.Dataset:
    """The stored picture of a layer, if it covers the run; else a picture of some of its epochs and steps, made now.

    Returns:
        ``embedding`` (epoch, step, unit, component), ``intra_step_entropy`` (epoch, step), ``inter_step_entropy``
        (epoch, unit); attribute ``picture`` says which of the two it is.
    """
    stored = run.results.get(layer, PICTURE)
    if stored is not None and stored.attrs.get("made_from") == run.fingerprint(layer):
        return stored.assign_attrs(picture="the page's")
    key = (run.path, layer, run.fingerprint(layer))
    kept = _last.get(key)
    if kept is None:
        kept = _small_picture(run, layer)
        _last.clear()  # one at a time: the studies of a layer follow each other
        _last[key] = kept
    return kept


_last: dict[tuple[str, str, str], xr.Dataset] = {}


def _small_picture(run: Run, layer: str) -> xr.Dataset:
    from hiddenscope.embeddings.mmphate import MMPHATE

    trace, note = thinned_trace(run, layer, epochs=SMALL_EPOCHS, steps=SMALL_STEPS)
    embedding = MMPHATE(n_components=3, random_state=0).fit_transform(trace)
    assert isinstance(embedding, xr.DataArray)
    embedding = embedding.reset_coords(drop=True)
    picture = {
        "embedding": embedding,
        "intra_step_entropy": intra_step_entropy(embedding),
        "inter_step_entropy": inter_step_entropy(embedding),
    }
    return xr.Dataset(picture).assign_attrs(picture="a small one" + (f" of {note}" if note else ""))


def smoothed(trajectories: xr.DataArray, *, epochs: int = 3) -> xr.DataArray:
    """A running mean over epochs, shorter at both ends.

    >>> smoothed(xr.DataArray([0.0, 3.0, 0.0, 0.0], dims="epoch")).values
    array([1.5, 1. , 1. , 0. ])
    """
    return trajectories.rolling(epoch=epochs, center=True, min_periods=1).mean()


def mean_over(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Mean of what is known, as float64, over one dimension, with the epochs as only coordinate."""
    mean = values.astype(np.float64).mean(dim, skipna=True)
    return xr.DataArray(mean.values, dims="epoch", coords={"epoch": values["epoch"].values.astype(np.float64)})
