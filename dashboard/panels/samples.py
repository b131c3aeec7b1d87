"""The sequences of the probe as the page calls them, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence

import dash_mantine_components as dmc
import xarray as xr
from dash import html

from hiddenscope.dashboard.panels.graph import Identity


def sample_name(states: xr.DataArray, place: int, names: Sequence[str] | None) -> str:
    """A sequence by its label and its class."""
    sample = states["sample"].values[place]
    if "label" not in states.coords:
        return f"{sample}"
    code = int(states["label"].values[place])
    return f"{sample} \u00b7 {names[code] if names is not None and 0 <= code < len(names) else code}"


def sample_names(states: xr.DataArray, names: Sequence[str] | None) -> list[str]:
    """All of them, in the order of the probe."""
    return [sample_name(states, place, names) for place in range(states.sizes["sample"])]


def sample_choice(identity: Identity, called: Sequence[str], chosen: int) -> html.Label:
    """A select of sequences by their names, whose values are their places."""
    select = dmc.Select(
        id=identity,
        data=[{"value": str(place), "label": name} for place, name in enumerate(called)],
        value=str(chosen),
        size="xs",
        w=220,
        allowDeselect=False,
        **{"aria-label": "sequence"},
    )
    return html.Label([html.Span("sequence"), select], className="control")
