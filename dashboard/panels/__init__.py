"""The lower part of the page: one panel for each way of looking at a run, of which one is open at a time.

A panel is a module of this folder with a ``PANEL``. It draws what is stored (see `hiddenscope.analyses.studies`) with
the functions of `hiddenscope.dashboard.figures`; what is picked in it is seen everywhere else, and the other way round.
"""

from __future__ import annotations

import importlib

from hiddenscope.dashboard.panels.panel import Panel, Scene

PANELS: tuple[str, ...] = ()
"""The modules of this folder that hold a ``PANEL``, in the order of the page."""


def all_panels() -> tuple[Panel, ...]:
    """Every panel, in the order of the page."""
    found = []
    for name in PANELS:
        panel = importlib.import_module(f"{__name__}.{name}").PANEL
        assert isinstance(panel, Panel), name
        found.append(panel)
    return tuple(found)


__all__ = ["PANELS", "Panel", "Scene", "all_panels"]
