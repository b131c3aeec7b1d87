"""What people see: figures, the live page and the worker behind it."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    # ``hs.plot`` is fetched from here when it is first touched; nothing else is loaded with the package.
    if name == "plot":
        return importlib.import_module("hiddenscope.dashboard.plot")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
