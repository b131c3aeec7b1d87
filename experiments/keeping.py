"""A dataset as one npz file that appears whole or not at all: what experiments keep of what took long to compute."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

_LAYOUT = "layout"


def save_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset of numbers and texts; a file that is there is replaced.

    Args:
        dataset: variables and coordinates of any dims; attributes that JSON knows.
        path: ends in ``.npz``.

    Raises:
        ValueError: a variable holds Python objects other than texts.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    layout: dict[str, Any] = {"attrs": _plain(dataset.attrs), "variables": {}}
    for number, (name, variable) in enumerate(dataset.variables.items()):
        values = variable.values
        if values.dtype == object:
            values = _texts(values, str(name))
        arrays[f"array{number}"] = values
        layout["variables"][str(name)] = {
            "array": f"array{number}",
            "dims": list(variable.dims),
            "attrs": _plain(variable.attrs),
            "coordinate": name in dataset.coords,
        }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, **{_LAYOUT: np.array(json.dumps(layout))}, **arrays)  # type: ignore[arg-type]
        os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def load_dataset(path: Path) -> xr.Dataset:
    """Read what `save_dataset` wrote."""
    with np.load(path, allow_pickle=False) as file:
        layout = json.loads(str(file[_LAYOUT]))
        variables = {
            name: xr.Variable(about["dims"], file[about["array"]], about["attrs"])
            for name, about in layout["variables"].items()
        }
    coordinates = {name for name, about in layout["variables"].items() if about["coordinate"]}
    return xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in coordinates},
        {name: variable for name, variable in variables.items() if name in coordinates},
        layout["attrs"],
    )


def _texts(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    if not all(isinstance(value, str) for value in values.ravel()):
        raise ValueError(f"only numbers and texts can be kept, variable {name!r} holds other objects")
    return values.astype(np.str_)


def _plain(attributes: dict[Any, Any]) -> dict[str, Any]:
    def known(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, np.generic):
            return value.item()
        raise ValueError(f"only attributes that JSON knows can be kept, got {type(value).__name__}")

    plain: dict[str, Any] = json.loads(
        json.dumps({str(name): value for name, value in attributes.items()}, default=known)
    )
    return plain
