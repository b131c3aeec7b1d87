"""Work split over threads such that the result has the same bits whatever their number.

Every compiled stage is a function of a block (a unit, a range of slices) that writes to that block alone and holds no
lock; which thread runs a block, and when, cannot be seen in the result. Matrix products use one BLAS thread each, for
the same reason: a BLAS may sum in another order when it splits a product.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numba
import scipy.linalg  # noqa: F401 - brings its BLAS into the process before the BLAS libraries are counted
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Block = TypeVar("Block")
Result = TypeVar("Result")


def number_of_threads() -> int:
    """How many threads the compiled stages use: ``NUMBA_NUM_THREADS``, else the cores this process may run on."""
    return max(1, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def run_blocks(function: Callable[[Block], Result], blocks: Sequence[Block]) -> list[Result]:
    """``function`` of every block, in the order of the blocks, on `number_of_threads` threads."""
    workers = min(number_of_threads(), len(blocks))
    if workers <= 1:
        return [function(block) for block in blocks]
    return list(_pool(workers).map(function, blocks))


def ranges(length: int, size: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) pairs that cover ``range(length)``, each of ``size`` but the last.

    >>> ranges(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + size, length)) for start in range(0, length, size)]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Matrix products inside this block run on one thread, so that their bits do not depend on the machine's load."""
    with _blas().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="hiddenscope-embedding")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
