"""The lower part of the page: one panel for each way of looking at a run, of which one is open at a time.

A panel is a module of this folder with a ``PANEL``. It draws what is stored (see `hiddenscope.analyses.studies`) with
the functions of `hiddenscope.dashboard.figures`; what is picked in it is seen everywhere else, and the other way round.
"""

from __future__ import annotations

import importlib
from typing import Any

from hiddenscope.dashboard.panels.panel import Panel, Scene

PANELS: tuple[str, ...] = ("clusters", "checks", "pod", "responses", "rnnvis", "activations", "search")
"""The modules of this folder that hold a ``PANEL``, in the order of the page."""


def all_panels() -> tuple[Panel, ...]:
    """Every panel, in the order of the page; one that cannot be loaded says why when it is opened."""
    return tuple(_load(name) for name in PANELS)


def _load(name: str) -> Panel:
    try:
        panel = importlib.import_module(f"{__name__}.{name}").PANEL
    except (ImportError, AttributeError) as error:
        problem = error

        def draw(scene: Scene) -> list[Any]:
            raise problem

        return Panel(name, name, "This panel cannot be loaded.", (), draw)
    assert isinstance(panel, Panel), name
    return panel


__all__ = ["PANELS", "Panel", "Scene", "all_panels"]
