"""Where everything stands in the main picture of RNNVis: memory chips in a column, word clouds on an arc beside them.

All in pixels, y growing downward. RNNVis (Ming et al. 2017) draws one chip for each cluster of units, one square for
each unit, and one cloud for each cluster of words; how words are packed and clouds are spread is our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PITCH = 9.0
"""From one unit's square to the next, where there are many units."""
WIDE_PITCH, FEW_UNITS = 12.0, 200
"""The same, for no more units than this."""
LARGE_LETTERS, FEW_WORDS = 1.3, 80
"""By how much fonts grow where there are no more words than this."""
CHIP_COLUMNS = 24
CHIP_GAP = 16.0
CHIP_MARGIN = 5.0
FONT_LEAST, FONT_MOST = 10.0, 17.0
"""Of words; RNNVis has 9 to 17."""
NAME_LENGTH = 18
LETTER = 0.58  # mean width of a letter, over its font size
LINE = 1.18  # height of a line, over its font size
MOST_CLOUDS_IN_A_COLUMN = 5
CLOUD_ASPECT = 2.4
CLOUD_WIDTH = 400.0
CLOUD_GAP = 14.0
ARC = math.radians(110)
EDGE_POINTS = 24


@dataclass(frozen=True)
class Box:
    """A rectangle: its center, and half of its width and height."""

    x: float
    y: float
    half_width: float
    half_height: float

    @property
    def left(self) -> float:
        return self.x - self.half_width

    @property
    def right(self) -> float:
        return self.x + self.half_width

    @property
    def top(self) -> float:
        return self.y - self.half_height

    @property
    def bottom(self) -> float:
        return self.y + self.half_height


@dataclass(frozen=True)
class Drawing:
    """The whole picture.

    Attributes:
        width, height: of the canvas.
        chips: of each cluster of units, by label.
        units: center of each unit's square, NaN for units in no chip, shape (unit, 2).
        clouds: of each cluster of words, by label.
        words: center of each word, NaN for words in no cloud, shape (word, 2).
        fonts: size of each word, shape (word,).
        pitch: from one unit's square to the next.
    """

    width: float
    height: float
    chips: Mapping[int, Box]
    units: Floats
    clouds: Mapping[int, Box]
    words: Floats
    fonts: Floats
    pitch: float


def draw_all(
    names: Sequence[str], strengths: npt.ArrayLike, word_clusters: npt.ArrayLike, unit_clusters: npt.ArrayLike
) -> Drawing:
    """Lay out the main picture.

    Args:
        names: of the words.
        strengths: how strongly each word moves the chip of its own cluster, shape (word,); larger ones are written
            larger.
        word_clusters: label of each word, -1 for none.
        unit_clusters: label of each unit, -1 for none.
    """
    words, units = np.asarray(word_clusters), np.asarray(unit_clusters)
    sizes = fonts_of(strengths) * (LARGE_LETTERS if len(words) <= FEW_WORDS else 1.0)
    pitch = WIDE_PITCH if len(units) <= FEW_UNITS else PITCH
    order = [label for label in chip_order(units) if (units == label).any()]
    labels = [*order, *(label for label in np.unique(words[words >= 0]).tolist() if label not in order)]
    packed = {
        label: pack(names_of(names, words == label), sizes[words == label])
        for label in labels
        if (words == label).any()
    }
    cloud_boxes = {
        label: bounds(places, sizes[words == label], names_of(names, words == label))
        for label, places in packed.items()
    }
    tall_chips = sum(2 * half for _, half in (chip_size(int((units == label).sum()), pitch) for label in order))
    tall_chips += CHIP_GAP * max(len(order) - 1, 0)
    columns = in_columns(cloud_boxes)
    tall_clouds = max((stack_height([cloud_boxes[label] for label in column]) for column in columns), default=0.0)
    height = max(tall_chips, tall_clouds, 240.0) + 40.0
    chip_left = 84.0
    chips, squares = place_chips(units, order, pitch=pitch, left=chip_left, height=height)
    chip_right = max((box.right for box in chips.values()), default=chip_left + 120.0)
    clouds, centers = place_clouds(columns, cloud_boxes, left=chip_right + 130.0, height=height)
    at = np.full((len(words), 2), np.nan)
    for label, places in packed.items():
        at[words == label] = places + np.array(centers[label])
    right = max((box.right for box in clouds.values()), default=chip_right + 300.0)
    return Drawing(right + 16.0, height, chips, squares, clouds, at, sizes, pitch)


def chip_order(units: npt.ArrayLike) -> list[int]:
    """Labels of the chips from the top: the largest first, equal ones by label.

    >>> chip_order([2, 0, 0, -1, 1])
    [0, 1, 2]
    """
    labels, counts = np.unique(np.asarray(units), return_counts=True)
    kept = [(-int(count), int(label)) for label, count in zip(labels, counts, strict=True) if label >= 0]
    return [label for _, label in sorted(kept)]


def chip_size(count: int, pitch: float) -> tuple[float, float]:
    """Half of the width and of the height of a chip of ``count`` units."""
    columns = min(count, CHIP_COLUMNS)
    rows = math.ceil(count / CHIP_COLUMNS)
    return CHIP_MARGIN + columns * pitch / 2, CHIP_MARGIN + rows * pitch / 2


def place_chips(
    units: npt.NDArray[Any], order: Sequence[int], *, pitch: float, left: float, height: float
) -> tuple[dict[int, Box], Floats]:
    """Chips one above the other, spread over the height, and the center of each unit's square."""
    halves = {label: chip_size(int((units == label).sum()), pitch) for label in order}
    taken = sum(2 * half for _, half in halves.values())
    gap = (height - taken) / (len(order) + 1) if order else 0.0
    chips, squares = {}, np.full((len(units), 2), np.nan)
    top = gap
    for label in order:
        half_width, half_height = halves[label]
        chips[label] = Box(left + half_width, top + half_height, half_width, half_height)
        rank = np.arange(int((units == label).sum()))
        squares[units == label, 0] = left + CHIP_MARGIN + (rank % CHIP_COLUMNS + 0.5) * pitch
        squares[units == label, 1] = top + CHIP_MARGIN + (rank // CHIP_COLUMNS + 0.5) * pitch
        top += 2 * half_height + gap
    return chips, squares


def fonts_of(strengths: npt.ArrayLike) -> Floats:
    """Font sizes, linear in strength from nothing to the strongest."""
    sizes = np.abs(np.asarray(strengths, dtype=np.float64))
    most = sizes.max(initial=0.0)
    return FONT_LEAST + (FONT_MOST - FONT_LEAST) * (sizes / most if most > 0 else sizes)


def shortened(name: str) -> str:
    """A name that fits into a cloud; blanks, which a character model has, become visible.

    >>> shortened(" "), shortened("abcdefghijklmnopqrstuvwxyz")
    ('␣', 'abcdefghijklmnopq…')
    """
    seen = name.replace(" ", "\u2423") if not name.strip(" ") else name
    seen = seen.replace("\n", "\u21b5").replace("\t", "\u21e5")
    return seen if len(seen) <= NAME_LENGTH else seen[: NAME_LENGTH - 1] + "\u2026"


def pack(names: Sequence[str], fonts: npt.ArrayLike) -> Floats:
    """Centers of words around (0, 0), none upon another, the largest in the middle; shape (word, 2).

    Words are set in lines of an ellipse: the strongest in the middle line, the next in the lines beside it, and within
    a line the stronger ones inside.
    """
    if not len(names):
        return np.zeros((0, 2))
    sizes = np.asarray(fonts, dtype=np.float64)
    widths, heights = 2 * extents(names, sizes).T
    area = float((widths * heights).sum()) * 1.25
    width = max(min(math.sqrt(area * CLOUD_ASPECT), CLOUD_WIDTH), float(widths.max(initial=0.0)))
    reach = area / width / 2 * 4 / math.pi + 1  # half of the height of an ellipse of this width and area
    placed = np.zeros((len(names), 2))
    waiting = np.argsort(-sizes, kind="stable").tolist()
    above = below = 0.0
    while waiting:
        upward = above < below
        middle = min(above, below) + heights[waiting[0]] / 2 if above or below else 0.0
        room = max(width * math.sqrt(max(0.0, 1 - (middle / reach) ** 2)), width * 0.3)
        line = [waiting.pop(0)]
        while waiting and widths[line].sum() + widths[waiting[0]] <= room:
            line.append(waiting.pop(0))
        line = line[::-2] + line[(len(line) % 2) :: 2]  # the strongest inside
        tall = float(heights[line].max())
        if not above and not below:
            y, above, below = 0.0, tall / 2, tall / 2
        elif upward:
            y, above = -above - tall / 2, above + tall
        else:
            y, below = below + tall / 2, below + tall
        placed[line, 0] = np.cumsum(widths[line]) - widths[line] / 2 - widths[line].sum() / 2
        placed[line, 1] = y
    return placed


def extents(names: Sequence[str], fonts: Floats) -> Floats:
    """Half of the width and of the height of each word as it is written, shape (word, 2)."""
    widths = np.array([max(len(shortened(name)), 1) for name in names], dtype=np.float64) * fonts * LETTER + 8
    return np.stack([widths / 2, fonts * LINE / 2], axis=1) if len(names) else np.zeros((0, 2))


def bounds(places: Floats, fonts: Floats, names: Sequence[str]) -> Box:
    """The box around packed words, with a margin."""
    halves = extents(names, fonts)
    low, high = (places - halves).min(axis=0) - 6, (places + halves).max(axis=0) + 6
    (x, y), (width, height) = (low + high) / 2, (high - low) / 2
    return Box(float(x), float(y), float(width), float(height))


def names_of(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> list[str]:
    """The chosen names."""
    return [names[i] for i in np.flatnonzero(chosen).tolist()]


def in_columns(boxes: Mapping[int, Box]) -> list[list[int]]:
    """Labels of clouds in one column, or in turn in two where there are many."""
    labels = list(boxes)
    if len(labels) <= MOST_CLOUDS_IN_A_COLUMN:
        return [labels] if labels else []
    return [labels[::2], labels[1::2]]


def stack_height(boxes: Sequence[Box]) -> float:
    """Boxes one above the other, with gaps."""
    return sum(2 * box.half_height for box in boxes) + CLOUD_GAP * max(len(boxes) - 1, 0)


def place_clouds(
    columns: Sequence[Sequence[int]], boxes: Mapping[int, Box], *, left: float, height: float
) -> tuple[dict[int, Box], dict[int, tuple[float, float]]]:
    """Clouds spread over the height, the middle ones further to the right: an arc of 110 degrees, flattened.

    Returns:
        The box of each cloud, and where the origin of its packed words comes to lie.
    """
    placed, origins = {}, {}
    start = left
    for column in columns:
        free = height - sum(2 * boxes[label].half_height for label in column)
        gap, top, end = free / (len(column) + 1), 0.0, start
        for label in column:
            box = boxes[label]
            top += gap
            y = top + box.half_height
            angle = (y / height - 0.5) * ARC
            bulge = 90.0 * (math.cos(angle) - math.cos(ARC / 2)) / (1 - math.cos(ARC / 2))
            x = start + bulge + box.half_width
            placed[label] = Box(x, y, box.half_width, box.half_height)
            origins[label] = (x - box.x, y - box.y)
            top += 2 * box.half_height
            end = max(end, x + box.half_width)
        start = end - 20.0
    return placed, origins


def curve(start: tuple[float, float], end: tuple[float, float]) -> Floats:
    """A cubic curve that leaves and arrives horizontally, shape (point, 2)."""
    t = np.linspace(0, 1, EDGE_POINTS)[:, np.newaxis]
    middle = (start[0] + end[0]) / 2
    corners = np.array([start, (middle, start[1]), (middle, end[1]), end])
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    points: Floats = weights @ corners
    return points
