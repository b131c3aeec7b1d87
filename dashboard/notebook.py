"""The page inside a notebook, and a small picture of a run wherever notebooks show objects."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.dashboard.figures.decimate import evenly
from hiddenscope.dashboard.picture import METHOD
from hiddenscope.run import Run
from hiddenscope.trace import EMBEDDING_DIMS

_MOST_POINTS = 1_500
_SIZE = 220


class InlinePage:
    """A page that is served by this process, on this machine alone; a notebook shows it in place.

    Attributes:
        address: where it is; open it in a browser for the whole window.
    """

    def __init__(self, run: Run, *, height: int = 860, worker: bool = True) -> None:
        """Use `Run.dashboard`."""
        from hiddenscope.dashboard.app import create_app
        from hiddenscope.dashboard.command import listen, serve
        from hiddenscope.dashboard.safety import FRAMED
        from hiddenscope.dashboard.supervisor import Supervisor

        folder = run.location.folder
        if folder is None:
            raise ValueError(f"the page shows runs in folders, got {run.path}; copy the run to this machine first")
        self._height = height
        self._supervisor = Supervisor.of(Path(folder)) if worker else None
        app = create_app(folder, supervisor=self._supervisor)
        app.server.config[FRAMED] = True
        listener = listen("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server: Any = serve(app, listener)
        self._thread = threading.Thread(target=self._serve, name="hiddenscope-page", daemon=True)
        self._thread.start()
        if self._supervisor is not None:
            self._supervisor.start()

    def stop(self) -> None:
        """End the page; a notebook's kernel does it too, when it ends."""
        if self._supervisor is not None:
            self._supervisor.stop()
        self._server.close()
        self._thread.join(5)

    def _serve(self) -> None:
        from hiddenscope.dashboard.command import run_until_closed

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            run_until_closed(self._server)

    def __repr__(self) -> str:
        return f"<hiddenscope page at {self.address}>"

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self._height}px;border:1px solid #d0d7de;border-radius:8px"
        return (
            f'<iframe src="{self.address}" title="hiddenscope" style="{style}"></iframe>'
            f'<p><a href="{self.address}" target="_blank" rel="noopener">open in a window</a></p>'
        )


def display_embeddings(shell: Any) -> None:
    """Let an IPython shell or a notebook show embeddings as small pictures; what ``%load_ext hiddenscope`` does."""
    shell.display_formatter.formatters["text/html"].for_type(xr.DataArray, _as_html)


def _as_html(array: xr.DataArray) -> str:
    """What xarray shows of an array, under a picture of it where it is an embedding."""
    is_embedding = array.dims == EMBEDDING_DIMS and array.sizes["component"] > 1
    shown: str = array._repr_html_()  # type: ignore[no-untyped-call]
    return (thumbnail(array.values) if is_embedding else "") + shown


def thumbnails(run: Run) -> str:
    """The stored picture of each layer as a small drawing, an SVG; empty where there is none yet."""
    drawn = []
    for layer in run.layers[:4]:
        result = run.results.get(layer, METHOD)
        if result is not None:
            drawn.append(thumbnail(np.asarray(result["embedding"].values)))
    return "".join(drawn)


def thumbnail(embedding: npt.NDArray[np.floating]) -> str:
    """The first two components as dots, colored from the first epoch to the last; finite points alone.

    Args:
        embedding: (epoch, step, unit, component).

    >>> thumbnail(np.zeros((2, 1, 1, 2))).count("<circle")
    2
    """
    from hiddenscope.dashboard.figures.template import colorscale

    epochs = np.broadcast_to(np.arange(len(embedding))[:, None, None], embedding.shape[:3]).reshape(-1)
    points = embedding[..., :2].reshape(-1, 2)
    finite = np.isfinite(points).all(axis=1)
    points, epochs = points[finite], epochs[finite]
    chosen = evenly(len(points), _MOST_POINTS)
    points, epochs = points[chosen], epochs[chosen]
    if not len(points):
        return ""
    low, extent = points.min(axis=0), np.ptp(points, axis=0).max() or 1.0
    places = 8 + (_SIZE - 16) * (points - low) / extent
    colors = [color for _, color in colorscale("epoch", dark=False)]
    at = (epochs * (len(colors) - 1) / max(1, len(embedding) - 1)).round().astype(int)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{_SIZE - y:.1f}" r="1.4" fill="{colors[k]}"/>'
        for (x, y), k in zip(places, at, strict=True)
    )
    return f'<svg width="{_SIZE}" height="{_SIZE}" role="img" aria-label="embedding">{dots}</svg>'
