"""What a browser asks a panel for. It may send anything; what makes no sense is answered with None."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hiddenscope.dashboard.library import Library, View
from hiddenscope.dashboard.panels.panel import Scene, number_of
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run


@dataclass(frozen=True)
class Asked:
    """A scene that was drawn, and is asked for again with a part of it changed; the fields are those of `Scene`.

    ``name`` is the name of the run in the library.
    """

    name: str
    view: View
    run: Run
    epoch: float
    options: Mapping[str, str]
    dark: bool


def told(scene: Scene, epoch: float, controls: Iterable[str]) -> dict[str, object]:
    """What `scene_asked` needs to know of a scene, as plain JSON for the page to keep."""
    options = {name: scene.options.get(name, "") for name in controls}
    return {"run": scene.view.name, "layer": scene.view.layer, "epoch": epoch, "dark": scene.dark, **options}


def scene_asked(library: Library, kept: object, controls: Iterable[str]) -> Asked | None:
    """The scene of which the page has kept what it was told."""
    if not isinstance(kept, dict) or not isinstance(kept.get("layer"), str):
        return None
    epoch, found = number_of(kept.get("epoch")), run_asked(library, kept.get("run"), kept["layer"])
    if epoch is None or found is None:
        return None
    options = {name: str(kept.get(name, "")) for name in controls}
    return Asked(kept["run"], *found, epoch, options, bool(kept.get("dark")))


def run_asked(library: Library, run: object, layer: object) -> tuple[View, Run] | None:
    """A run by its name, at one of its layers; what is no name of a layer stands for the first."""
    if not isinstance(run, str) or run not in library.runs():
        return None
    try:
        return library.pinned(run, layer if isinstance(layer, str) else None)
    except (HiddenscopeError, OSError, KeyError):
        return None
