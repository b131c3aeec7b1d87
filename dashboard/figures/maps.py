"""A map of every epoch (across) and step (up)."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.template import colorbar, colorscale


def epoch_step_map(
    values: xr.DataArray, *, low: float | None = None, high: float | None = None, unit: str = "", dark: bool
) -> go.Heatmap:
    """Values (epoch, step), some of them finite.

    Args:
        values: what is drawn.
        low: where the colors begin; None lets one value in fifty lie below, so that one odd epoch does not flatten all
            the others.
        high: where they end; None as for ``low``.
        unit: of the values, as it stands behind a number.
        dark: for dark backgrounds.
    """
    finite = values.values[np.isfinite(values.values)]
    bottom = float(np.percentile(finite, 2)) if low is None else low
    top = float(np.percentile(finite, 98)) if high is None else high
    return go.Heatmap(
        x=values["epoch"].values.astype(np.float32),
        y=values["step"].values,
        z=values.transpose("step", "epoch").values.astype(np.float32),
        zmin=bottom,
        zmax=max(top, bottom + 1e-9),
        colorscale=colorscale("value", dark=dark),
        colorbar=colorbar(title="", dark=dark) | {"x": 1.01, "xanchor": "left", "nticks": 4, "thickness": 8},
        hovertemplate=f"%{{z:.3f}}{f' {unit}' if unit else ''}<br>epoch %{{x}}<br>step %{{y}}<extra></extra>",
    )
