"""Millions of points as one image: each cell shows the color of its points, and is the fuller the more there are.

The same as a shading library does, in two passes of ``numpy.bincount``: a million points take 25 ms here.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from plotly.colors import unlabel_rgb

from hiddenscope.dashboard.figures.template import Colorscale

CELLS = 640
"""Along the longer side."""
FAINTEST = 0.35

Window = tuple[float, float, float, float]
"""A part of the plane: low and high x, low and high y."""


@dataclass(frozen=True)
class Raster:
    """An image and the part of the plane that it covers.

    Attributes:
        pixels: shape (row, column, 4), red, green, blue and opacity, 0 to 255; row 0 is the top.
        window: what it covers.
    """

    pixels: npt.NDArray[np.uint8]
    window: Window

    def image(self) -> dict[str, Any]:
        """As an image of a Plotly layout, at its place in the plane."""
        low_x, high_x, low_y, high_y = self.window
        return {
            "source": "data:image/png;base64," + base64.b64encode(png(self.pixels)).decode(),
            "xref": "x",
            "yref": "y",
            "x": low_x,
            "y": high_y,
            "sizex": high_x - low_x,
            "sizey": high_y - low_y,
            "sizing": "stretch",
            "layer": "below",
        }


def rasterize(
    points: npt.NDArray[np.floating[Any]],
    values: npt.NDArray[np.floating[Any]],
    *,
    scale: Colorscale,
    low: float,
    high: float,
    blend: bool,
    window: Window | None = None,
    cells: int = CELLS,
) -> Raster:
    """Draw points as an image.

    Args:
        points: shape (point, 2); points that are not finite are left out.
        values: shape (point,), what the colors stand for; NaN is drawn gray.
        scale: the color scale, from ``low`` to ``high``.
        low, high: the ends of the scale.
        blend: a cell shows the mean value of its points; otherwise, for codes, the value of one of them.
        window: the part of the plane to draw; None for all of it.
        cells: of the longer side; cells are square.

    Raises:
        ValueError: no point is finite and no window is given.
    """
    known = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
    if window is None:
        if not known.any():
            raise ValueError("there is no finite point to draw; give a window, or other points")
        (low_x, low_y), (high_x, high_y) = points[known].min(axis=0), points[known].max(axis=0)
        window = (float(low_x), float(high_x), float(low_y), float(high_y))
    low_x, high_x, low_y, high_y = window
    cell = max(high_x - low_x, high_y - low_y, 1e-12) / cells
    width, height = (max(1, int(np.ceil(extent / cell - 1e-6))) for extent in (high_x - low_x, high_y - low_y))
    columns = np.floor((points[:, 0] - low_x) / cell)
    rows = np.floor((points[:, 1] - low_y) / cell)
    # What lies on the far edge belongs to the last cell.
    columns[points[:, 0] == high_x] = width - 1
    rows[points[:, 1] == high_y] = height - 1
    inside = known & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    at = rows[inside].astype(np.int64) * width + columns[inside].astype(np.int64)
    shown = values[inside].astype(np.float64)
    count = np.bincount(at, minlength=width * height)
    value = _blended(at, shown, width * height) if blend else _one_of(at, shown, width * height)
    pixels = np.zeros((height * width, 4), dtype=np.uint8)
    filled = count > 0
    pixels[filled, :3] = _colors(value[filled], scale, low, high)
    dense = max(float(np.log1p(np.percentile(count[filled], 99))), 1e-9) if filled.any() else 1.0
    opacity = FAINTEST + (1 - FAINTEST) * np.minimum(np.log1p(count[filled]) / dense, 1)
    pixels[filled, 3] = np.round(255 * opacity)
    covered = (low_x, low_x + width * cell, low_y, low_y + height * cell)
    return Raster(pixels.reshape(height, width, 4)[::-1], covered)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An image as a PNG file. ``pixels`` has shape (row, column, 4)."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _blended(at: npt.NDArray[np.int64], values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    known = np.isfinite(values)
    count = np.bincount(at[known], minlength=size)
    total = np.bincount(at[known], weights=values[known], minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _one_of(at: npt.NDArray[np.int64], values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    found = np.full(size, np.nan)
    order = np.random.default_rng(0).permutation(len(at))  # in the order of the points the last epoch would win
    found[at[order]] = values[order]
    return found


def _colors(values: npt.NDArray[np.float64], scale: Colorscale, low: float, high: float) -> npt.NDArray[np.uint8]:
    """(value, 3): the color of each value; gray where there is none."""
    edges = np.array([at for at, _ in scale])
    stops = np.array([_rgb(color) for _, color in scale], dtype=np.float64)
    at = np.clip(np.nan_to_num((values - low) / max(high - low, 1e-12)), 0, 1)
    if (np.diff(edges) == 0).any():  # made of flat steps: the later of two stops at one place counts from there on
        colors = stops[np.searchsorted(edges[:-1], at, side="right") - 1]
    else:
        colors = np.stack([np.interp(at, edges, channel) for channel in stops.T], axis=1)
    colors[~np.isfinite(values)] = 128
    return np.round(colors).astype(np.uint8)


def _rgb(color: str) -> tuple[int, int, int]:
    if color.startswith("#"):
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    if color.startswith("hsl"):
        import colorsys

        hue, saturation, lightness = (float(part.strip(" %")) for part in color[4:-1].split(","))
        red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    else:
        red, green, blue = (float(part) / 255 for part in unlabel_rgb(color))
    return round(255 * red), round(255 * green), round(255 * blue)
