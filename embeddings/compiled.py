"""How this package compiles its loops: to machine code kept on disk, without the interpreter's lock.

Sums may be taken in vector order (``fastmath``), which is fixed when the code is compiled and therefore the same in
every run and every thread; division follows IEEE rules instead of raising, which lets loops with a division become
vector code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
    cache=True, nogil=True, fastmath=True, error_model="numpy"
)
