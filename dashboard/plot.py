"""``hs.plot``: every figure of the page as one function, for notebooks and scripts.

Each takes arrays as `hiddenscope` gives them and returns a ``plotly.graph_objects.Figure``, which a notebook displays.
The figures of the panels are here too: ``dir(hs.plot)`` lists them all, and `panel` draws those of a recorded run.

>>> cloud = np.random.default_rng(0).normal(size=(3, 4, 5, 3))
>>> embedding(cloud, color="step").show  # doctest: +ELLIPSIS
<bound method ...>
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard import figures
from hiddenscope.dashboard.figures import curves, embedding, entropy_map, inter_entropy, intra_entropy, metrics
from hiddenscope.dashboard.picture import METHOD, picture
from hiddenscope.run import Run

__all__ = ["curves", "embedding", "entropy", "entropy_map", "inter_entropy", "intra_entropy", "metrics", "panel", "run"]


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
    from hiddenscope.dashboard.showing import clusters_and_phases

    name = _layer(recorded, layer)
    result = recorded.results.get(name, METHOD)
    if result is None:
        result = picture(recorded, name)
    clusters, phases = clusters_and_phases(recorded, name)
    intra, inter = result["intra_step_entropy"], result["inter_step_entropy"]
    return (
        figures.embedding(result["embedding"], dark=dark),
        figures.curves(recorded.metrics(), intra, inter, clusters=clusters, phases=phases, dark=dark),
    )


def panel(
    recorded: Run,
    name: str,
    layer: str | None = None,
    *,
    epoch: float | None = None,
    units: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    dark: bool = False,
) -> list[go.Figure]:
    """The figures of one panel of the page, such as ``"pod"``.

    Args:
        recorded: a run with at least one epoch.
        name: of the panel, as in the address of the page.
        layer: one of the run's layers; may be left out when there is only one.
        epoch: where the cursor stands, for panels that follow it; None for the newest.
        units: labels of picked units.
        options: values of the panel's controls, by name.
        dark: for dark backgrounds.

    Raises:
        ValueError: there is no such panel, or nothing is stored that it could draw; the message says how to compute it.
    """
    from hiddenscope.dashboard.panels import all_panels
    from hiddenscope.dashboard.showing import figures_of, panel_scene, view_of

    panels = {each.name: each for each in all_panels()}
    if name not in panels:
        raise ValueError(f"got panel {name!r}; there are {', '.join(map(repr, panels)) or 'none'}")
    chosen = _layer(recorded, layer)
    scene = panel_scene(
        panels[name],
        recorded,
        view_of(recorded, chosen),
        epoch=epoch,
        units=tuple(map(str, units)),
        options=options,
        dark=dark,
    )
    if scene is None:
        raise ValueError(f"nothing is stored for {name!r} of layer {chosen!r} yet; hiddenscope analyze computes it")
    return [shown.figure for shown in figures_of(panels[name].draw(scene)) if shown.height]


def _layer(recorded: Run, layer: str | None) -> str:
    if not np.size(recorded.epochs):
        raise ValueError(f"{recorded.path} has no epoch yet; wait for the first")
    return str(recorded.trace(layer, epochs=recorded.epochs[-1]).name)


_PARTS = ("template", "panels", "decimate", "raster")
"""Modules of the figures that hold no figure of their own."""


@cache
def _others() -> dict[str, Callable[..., go.Figure]]:
    """Every other public function of `hiddenscope.dashboard.figures` that returns a figure, by name."""
    found: dict[str, Callable[..., go.Figure]] = {}
    for module in pkgutil.iter_modules(figures.__path__):
        if module.name not in _PARTS:
            loaded = importlib.import_module(f"{figures.__name__}.{module.name}")
            for name, value in vars(loaded).items():
                home = getattr(value, "__module__", "")
                returned = getattr(value, "__annotations__", {}).get("return")
                if not name.startswith("_") and home == loaded.__name__ and returned == "go.Figure":
                    found.setdefault(name, value)
    return found


def __getattr__(name: str) -> Callable[..., go.Figure]:
    if not name.startswith("_") and name in _others():
        return _others()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its figures are {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_others()})
