"""A run as one picture: its embedding beside its curves, as a page that needs nothing else, and as PNG if it can be."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from pathlib import Path

from hiddenscope.dashboard.picture import METHOD
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ margin: 0; background: #fff; color: #1c2530; font: 14px system-ui, sans-serif; }}
h1 {{ font-size: 17px; margin: 14px 20px 0; }} p {{ color: #5d6b7a; margin: 2px 20px 8px; }}
main {{ display: grid; grid-template-columns: 1fr 1fr; height: max(calc(100vh - 60px), 930px); }}
</style></head><body><h1>{title}</h1><p>{note}</p><main>{embedding}{curves}</main></body></html>
"""


def save_snapshot(run: Run, folder: Path, *, title: str, layer: str | None = None) -> Path:
    """Write ``hiddenscope.html`` into ``folder``, and ``hiddenscope.png`` where Chromium is installed.

    Args:
        run: with a stored picture of ``layer``.
        folder: where to write.
        title: above the figures.
        layer: by default the first.

    Returns:
        The PNG if it could be made, else the page.

    Raises:
        HiddenscopeError: the layer has no picture yet.
    """
    page = folder / "hiddenscope.html"
    page.write_text(snapshot_html(run, title=title, layer=layer), encoding="utf-8")
    image = folder / "hiddenscope.png"
    return image if _photograph(page, image) else page


def snapshot_html(run: Run, *, title: str, layer: str | None = None) -> str:
    """The page of `save_snapshot`; plotly.js is inside, so it opens anywhere, forever."""
    from hiddenscope.dashboard.figures import curves, embedding

    chosen = run.layers[0] if layer is None else layer
    result = run.results.get(chosen, METHOD)
    if result is None:
        raise HiddenscopeError(f"layer {chosen!r} of {run.path} has no picture yet; run hiddenscope dashboard on it")
    cloud = embedding(result["embedding"])
    lines = curves(run.metrics(), result["intra_step_entropy"], result["inter_step_entropy"])
    parts = [f"layer {chosen}", f"{len(run.epochs)} epochs", "embedded from " + (result.attrs["note"] or "all nodes")]
    sized = {"full_html": False, "config": {"displayModeBar": False}, "default_width": "100%", "default_height": "100%"}
    return _PAGE.format(
        title=html.escape(title),
        note=html.escape(" · ".join([*parts, cloud.layout.meta["note"]]).rstrip(" ·")),
        embedding=cloud.to_html(include_plotlyjs=True, **sized),
        curves=lines.to_html(include_plotlyjs=False, **sized),
    )


def _photograph(page: Path, image: Path) -> bool:
    """Whether a headless browser could be found and drew the page."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",  # the page is our own, and containers have no sandbox to offer
            "--disable-background-networking",
            "--enable-unsafe-swiftshader",
            "--hide-scrollbars",
            "--window-size=1600,1000",
            "--virtual-time-budget=10000",
            f"--user-data-dir={profile}",
            f"--screenshot={image.absolute()}",
            page.absolute().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0 and image.exists()
