"""``hs.plot``: every figure of the page as one function, for notebooks and scripts.

Each takes arrays as `hiddenscope` gives them and returns a ``plotly.graph_objects.Figure``, which a notebook displays.

>>> cloud = np.random.default_rng(0).normal(size=(3, 4, 5, 3))
>>> embedding(cloud, color="step").show  # doctest: +ELLIPSIS
<bound method ...>
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard import figures
from hiddenscope.dashboard.figures import curves, embedding, entropy_map, inter_entropy, intra_entropy, metrics
from hiddenscope.dashboard.picture import METHOD, picture
from hiddenscope.run import Run

__all__ = ["curves", "embedding", "entropy", "entropy_map", "inter_entropy", "intra_entropy", "metrics", "run"]


def entropy(values: xr.DataArray, *, unit: str = "nats", dark: bool = False) -> go.Figure:
    """An entropy over epochs, drawn as its dims ask for.

    Args:
        values: intra-step entropy (epoch, step), drawn as mean and band, or inter-step entropy (epoch, unit), drawn as
            a line per unit.
        unit: of the values.
        dark: for dark backgrounds.

    Raises:
        ValueError: other dims.

    >>> values = xr.DataArray(np.zeros((2, 3)), dims=("epoch", "unit"), coords={"epoch": [0, 1], "unit": [0, 1, 2]})
    >>> [trace.name for trace in entropy(values).data]
    ['unit 0', 'unit 1', 'unit 2', 'median']
    """
    if set(values.dims) == {"epoch", "step"}:
        return intra_entropy(values, unit=unit, dark=dark)
    if set(values.dims) == {"epoch", "unit"}:
        return inter_entropy(values, unit=unit, dark=dark)
    raise ValueError(f"an entropy has dims (epoch, step) or (epoch, unit), got {values.dims}")


def run(recorded: Run, layer: str | None = None, *, dark: bool = False) -> tuple[go.Figure, go.Figure]:
    """The two sides of the page: the embedding of a layer, and its curves.

    The stored picture is shown where there is one; otherwise it is made, which may take a while, and not stored.

    Args:
        recorded: a run with at least one epoch.
        layer: one of its layers; may be left out when there is only one.
        dark: for dark backgrounds.

    Raises:
        ValueError: no epoch is recorded, or the layer is unknown or left out where there are several.
    """
    if not np.size(recorded.epochs):
        raise ValueError(f"{recorded.path} has no epoch yet; wait for the first")
    name = recorded.trace(layer, epochs=recorded.epochs[-1]).name
    result = recorded.results.get(str(name), METHOD)
    if result is None:
        result = picture(recorded, str(name))
    return (
        figures.embedding(result["embedding"], dark=dark),
        figures.curves(recorded.metrics(), result["intra_step_entropy"], result["inter_step_entropy"], dark=dark),
    )
