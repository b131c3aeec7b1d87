"""Phases of a training, shaded behind curves over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.template import SMALL, faded, theme

RIBBON = 19
"""Pixels above the curves, over their caption, at which phases are named."""
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
    shapes: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    found = [phase for phase in chosen_phases(phases) if phase[2] in hues]
    extent = max((last for _, last, _ in found), default=0.0) - min((first for first, _, _ in found), default=0.0)
    told = -np.inf
    for first, last, kind in found:
        band = {"type": "rect", "xref": "x", "yref": "paper", "x0": first, "x1": last, "line": {"width": 0}}
        shapes.append(band | {"y0": 0, "y1": 1, "fillcolor": faded(hues[kind], 0.10), "layer": "below", "name": kind})
        shapes.append(
            band | {"ysizemode": "pixel", "yanchor": 1, "y0": RIBBON, "y1": RIBBON + 3, "fillcolor": hues[kind]}
        )
        if captions and first - told < 0.2 * extent:
            continue  # its name would run into the one before it; the color tells
        told = first
        captions.append(
            {
                "text": kind,
                "x": first,
                "xref": "x",
                "xanchor": "left",
                "y": 1,
                "yref": "paper",
                "yshift": RIBBON + 2,
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": SMALL, "color": hues[kind]},
            }
        )
    if found:
        figure.update_layout(margin_t=RIBBON + 24)
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
