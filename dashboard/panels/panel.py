"""What a panel of the page is, and what it is given to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dash import Dash

from hiddenscope.dashboard.focus import NOTHING, Focus
from hiddenscope.dashboard.library import Library, View
from hiddenscope.run import Run


@dataclass(frozen=True)
class Scene:
    """What the page shows when a panel is drawn.

    Attributes:
        view: the layer of the run that is shown, with its metrics and its picture.
        run: the run itself, pinned to the same commit; read only what is needed, it may be large.
        results: the stored results of the panel's methods, by method; None where there is none yet.
        epoch: where the cursor stands; None shows all epochs, and what shows one epoch then shows the newest.
        units: labels of the picked units, as in the table; empty for none.
        options: the values of the panel's own controls, by their name.
        dark: whether the page is dark.
        focus: the sequence, the period or the words that are picked. A panel is not drawn anew when they change: it is
            where they were picked, or it was closed.
    """

    view: View
    run: Run
    results: Mapping[str, xr.Dataset | None]
    epoch: float | None
    units: Sequence[str]
    options: Mapping[str, str]
    dark: bool
    focus: Focus = NOTHING


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        name: its name in addresses, lower case.
        title: what stands on its tab.
        about: one sentence that tells a newcomer what is seen here.
        methods: names of the studies it draws; it is drawn anew when one of them is.
        draw: from a scene to Dash components, mostly ``dcc.Graph`` with figures. Graphs whose points carry a unit's
            label as ``customdata`` and have an id ``{"type": "panel-units", "name": …}`` pick units when clicked; those
            with an id ``{"type": "panel-epochs", "name": …}`` and epochs as x move the page's cursor.
        controls: the panel's own selects, by name: a label and the choices, of which the first is the default.
        follows_cursor: whether it is drawn anew when the cursor moves to another epoch.
        connect: registers further callbacks, for panels that answer to more than clicks; ids begin with the name.
        waits: whether it is drawn only when at least one of its methods is stored; until then the page explains what
            is missing.
    """

    name: str
    title: str
    about: str
    methods: tuple[str, ...]
    draw: Callable[[Scene], list[Any]]
    controls: Mapping[str, tuple[str, Sequence[str]]] | None = None
    follows_cursor: bool = False
    connect: Callable[[Dash, Library], None] | None = None
    waits: bool = True


def number_of(value: object) -> float | None:
    """The number that a browser sent, or None where it is none, or none that a float can hold.

    >>> number_of(3), number_of(True), number_of("3"), number_of(10**400), number_of(float("nan"))
    (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)


def epoch_at(epochs: npt.ArrayLike, cursor: float | None) -> float:
    """The epoch that is shown for a cursor: the last that is not past it, or else the first; the newest without one.

    >>> epoch_at([-1, 4, 9], 6.5), epoch_at([-1, 4, 9], None), epoch_at([4, 9], 0)
    (4.0, 9.0, 4.0)
    """
    there = np.asarray(epochs, dtype=np.float64)
    before = there if cursor is None else there[there <= cursor]
    return float(before[-1] if len(before) else there[0])
