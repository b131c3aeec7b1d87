"""What an experiment ran on: the machine and the versions that its figures depend on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "hiddenscope",
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "xarray",
    "graphtools",
    "phate",
    "torch",
    "pytorch-lightning",
    "openTSNE",
    "umap-learn",
    "ruptures",
    "seglearn",
    "plotly",
)


def describe_machine() -> dict[str, str | int | float]:
    """Operating system, processor, cores that may be used, and memory in GiB where it can be told."""
    found: dict[str, str | int | float] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": os.environ.get("OMP_NUM_THREADS", "not limited"),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return found


def describe_versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
