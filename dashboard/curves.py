"""The curves of a run on one axis of epochs, from what is stored to their figure."""

from __future__ import annotations

from typing import Any

import xarray as xr

from hiddenscope.dashboard import figures
from hiddenscope.dashboard.library import View


def curves_figure(
    view: View,
    *,
    log: bool,
    smoothing: float = 0.0,
    clusters: xr.DataArray | None = None,
    phases: xr.Dataset | None = None,
    dark: bool,
) -> dict[str, Any]:
    """Loss, metrics and entropies of a view."""
    intra = inter = None
    if view.result is not None:
        intra, inter = view.result["intra_step_entropy"], view.result["inter_step_entropy"]
    figure: dict[str, Any] = figures.curves(
        view.metrics, intra, inter, log=log, smoothing=smoothing, clusters=clusters, phases=phases, dark=dark
    ).to_dict()
    figure["layout"]["uirevision"] = f"curves of {view.name}, {view.layer}"
    return figure
