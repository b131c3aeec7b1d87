"""What was computed for one viewer is there for the next: the last few values, by what they were computed from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

MOST = 32

Value = TypeVar("Value")

_values: OrderedDict[tuple[object, ...], object] = OrderedDict()
_lock = threading.Lock()


def remembered(key: tuple[object, ...], compute: Callable[[], Value]) -> Value:
    """The value of a key, computed when it is asked for first. Keys name all that the value depends on.

    >>> remembered(("an example", 1), lambda: [1, 2]) is remembered(("an example", 1), lambda: [3])
    True
    """
    with _lock:
        if key in _values:
            _values.move_to_end(key)
            return _values[key]  # type: ignore[return-value]
    value = compute()
    with _lock:
        _values[key] = value
        while len(_values) > MOST:
            _values.popitem(last=False)
    return value
