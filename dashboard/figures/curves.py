"""The right side of the page: loss, metrics and entropies, one above the other on one epoch axis."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.entropy import inter_panel, intra_panel, map_panel
from hiddenscope.dashboard.figures.metrics import metrics_panel
from hiddenscope.dashboard.figures.panels import stack
from hiddenscope.dashboard.figures.phases import shade


def curves(
    metrics: pd.DataFrame,
    intra: xr.DataArray | None,
    inter: xr.DataArray | None,
    *,
    log: bool = False,
    smoothing: float = 0.0,
    clusters: xr.DataArray | None = None,
    phases: xr.Dataset | None = None,
    unit: str = "nats",
    dark: bool = False,
) -> go.Figure:
    """How training went and what the hidden states did, epoch by epoch.

    Args:
        metrics: one column per metric, indexed by epoch.
        intra: intra-step entropy, dims (epoch, step); None before the first embedding.
        inter: inter-step entropy, dims (epoch, unit); None before the first embedding.
        log: whether the losses are read on a logarithmic axis.
        smoothing: of the metrics, see `metrics`; 0 for none. Entropies are never smoothed.
        clusters: the name of each unit's cluster, dims (unit,); its units' entropies take the cluster's color.
        phases: of the intra-step entropy, as `hiddenscope.analyses.phases.phases_of_all` gives them; shaded.
        unit: of the entropies.
    """
    panels = [
        metrics_panel(metrics, log=log, smoothing=smoothing, dark=dark),
        intra_panel(intra, unit=unit, dark=dark),
        map_panel(intra, unit=unit, dark=dark),
        inter_panel(inter, clusters=clusters, unit=unit, dark=dark),
    ]
    figure = stack(panels, untrained=bool((metrics.index == -1).any()), dark=dark)
    if phases is not None:
        shade(figure, phases, dark=dark)
    return figure
