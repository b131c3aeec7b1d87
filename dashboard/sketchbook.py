"""Figures that were drawn already: ten viewers of one run see one drawing."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Sketchbook:
    """Keeps the newest drawings by what they depend on.

    Drawing is work for one processor at a time anyway, so whoever asks for what is being drawn waits for it.

    Args:
        pages: how many drawings are kept.

    >>> book = Sketchbook(2)
    >>> book.drawn(["run", 1], lambda: "drawn"), book.drawn(["run", 1], lambda: "drawn again")
    ('drawn', 'drawn')
    """

    def __init__(self, pages: int = 16) -> None:
        self._pages = pages
        self._kept: OrderedDict[str, object] = OrderedDict()
        self._lock = threading.Lock()

    def drawn(self, mark: Sequence[object], draw: Callable[[], T]) -> T:
        """The drawing of ``mark``, plain JSON that says all that it depends on; do not change what comes back."""
        key = json.dumps(mark)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = draw()
            self._kept.move_to_end(key)
            while len(self._kept) > self._pages:
                self._kept.popitem(last=False)
            found: T = self._kept[key]  # type: ignore[assignment]
            return found
