"""Figures as PNG files, through kaleido and an installed Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hiddenscope.experiments.experiment import Picture

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(pictures: Sequence[Picture]) -> str:
    """Write every picture; what is missing for that, in words, or nothing if they were all written."""
    if not pictures:
        return ""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return "no PNG files: they need Chromium, found none; on Debian: apt-get install chromium"
    try:
        import kaleido
    except ImportError:
        return "no PNG files: they need kaleido; pip install 'hiddenscope[pictures]'"
    wanted = [
        {
            "fig": _on_white(picture),
            "path": str(picture.path),
            "opts": {"format": "png", "width": picture.width, "height": picture.height, "scale": 1},
        }
        for picture in pictures
    ]
    try:
        kaleido.write_fig_from_object_sync(wanted, kopts={"path": browser, "n": 1})
    except Exception as error:  # a browser fails in many ways, and none of them concerns the results
        return (
            f"no PNG files: Chromium could not draw them ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        )
    missing = [picture.path.name for picture in pictures if not picture.path.exists()]
    return f"no PNG files of {', '.join(missing)}: Chromium could not draw them" if missing else ""


def _on_white(picture: Picture) -> object:
    import plotly.graph_objects as go

    figure = go.Figure(picture.figure)
    figure.update_layout(paper_bgcolor="#ffffff")
    return figure
