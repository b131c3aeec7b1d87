"""Phases of a training, shaded behind curves over epochs."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.template import SMALL, faded, theme

PREFERRED = ("intra-step entropy (picture)", "intra-step entropy")
"""Names of the curve whose phases are shaded where there are several, in the order of preference."""


def shade(figure: go.Figure, phases: xr.Dataset, *, dark: bool = False) -> None:
    """Shade the phases of the intra-step entropy, or else of the curve with the clearest ones, behind all panels.

    Args:
        figure: of panels over one epoch axis, as `hiddenscope.dashboard.figures.panels.stack` makes it.
        phases: ``phase_first``, ``phase_last`` and ``phase_kind``, dims (curve, phase), as
            `hiddenscope.analyses.phases.phases_of_all` gives them.
        dark: for dark backgrounds.
    """
    look = theme(dark=dark)
    hues = {"processing": look.classes[2], "compression": look.classes[1]}
    shapes, captions = [], []
    for first, last, kind in chosen_phases(phases):
        if kind in hues:
            shapes.append(
                {
                    "type": "rect",
                    "xref": "x",
                    "yref": "paper",
                    "x0": first,
                    "x1": last,
                    "y0": 0,
                    "y1": 1,
                    "fillcolor": faded(hues[kind], 0.10),
                    "line": {"width": 0},
                    "layer": "below",
                    "name": kind,
                }
            )
            captions.append(
                {
                    "text": kind,
                    "x": (first + last) / 2,
                    "xref": "x",
                    "y": 1,
                    "yref": "paper",
                    "yshift": -2,
                    "yanchor": "top",
                    "showarrow": False,
                    "font": {"size": SMALL, "color": hues[kind]},
                }
            )
    figure.update_layout(shapes=[*figure.layout.shapes, *shapes], annotations=[*figure.layout.annotations, *captions])


def chosen_phases(phases: xr.Dataset) -> list[tuple[float, float, str]]:
    """First epoch, last epoch and kind of each phase of the curve that is shaded; empty where none is claimed."""
    names = [str(name) for name in phases["curve"].values]
    if not names:
        return []
    preferred = [name for name in PREFERRED if name in names]
    clearest = names[int(np.nanargmin(np.where(np.isfinite(phases["p_value"].values), phases["p_value"].values, 2.0)))]
    row = phases.isel(curve=names.index(preferred[0] if preferred else clearest))
    table = zip(row["phase_first"].values, row["phase_last"].values, row["phase_kind"].values, strict=True)
    return [(float(first), float(last), str(kind)) for first, last, kind in table if np.isfinite(first)]
