"""Say what a computation would take before it takes it."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> int | None:
    """Bytes that this process can still use, or None where the system does not tell.

    The smaller of what the kernel calls available and what is left of the control group's limit (as in a container).
    """
    known = [size for size in (_machine_memory(), _group_memory()) if size is not None]
    return min(known, default=None)


def require_memory(needed: int, *, purpose: str, remedy: str) -> None:
    """Raise a MemoryError that names both sizes when ``needed`` bytes are more than there are.

    Args:
        needed: bytes at the peak.
        purpose: what they are for.
        remedy: what to do instead.

    >>> require_memory(10**18, purpose="an example", remedy="take a smaller one")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    MemoryError: an example would take 931,322,574.62 GiB, of which ... GiB are available; take a smaller one
    """
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"{purpose} would take {needed / 2**30:,.2f} GiB, of which {available / 2**30:,.2f} GiB are available; "
            f"{remedy}"
        )


def _machine_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _physical_memory()
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else _physical_memory()


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _group_memory() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        return None if limit == "max" else max(0, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
