"""What is known of each unit, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr


def unit_table(
    result: xr.Dataset,
    class_names: Sequence[str] | None = None,
    columns: Mapping[str, xr.DataArray] = MappingProxyType({}),
) -> pd.DataFrame:
    """One row per unit, of a stored picture.

    Columns: ``unit``; ``entropy``, its inter-step entropy in the newest epoch, in nats; ``change``, how much that is
    above its first; ``travel``, how far it moved from epoch to epoch in the embedding, summed over epochs and averaged
    over steps, in standard deviations of the whole picture; ``class``, the class that it answers to at most steps of
    the newest epoch, and ``share``, at how many of them.

    Args:
        result: as `Painter.paint` makes it.
        class_names: the names of the class codes; None leaves ``class`` and ``share`` out.
        columns: more columns, by their header: values of dims (unit,), or (epoch, unit), of which the newest that is
            known is shown.
    """
    entropy = result["inter_step_entropy"].transpose("unit", "epoch").values.astype(float)
    points = result["embedding"].transpose("epoch", "step", "unit", "component").values.astype(float)
    spread = float(np.sqrt(np.nanmean(np.nanvar(points, axis=(0, 1, 2))))) if np.isfinite(points).any() else 1.0
    moves = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    rows = pd.DataFrame(
        {
            "unit": [str(label) for label in result["unit"].values],
            "entropy": entropy[:, -1],
            "change": entropy[:, -1] - entropy[:, 0],
            "travel": np.nansum(moves, axis=0).sum(axis=0) / points.shape[1] / (spread or 1.0),
        }
    )
    if class_names is not None:
        codes = result["most_active_class"].isel(epoch=-1).transpose("step", "unit").values
        counts = np.stack([(codes == code).sum(axis=0) for code in range(len(class_names))])
        rows["class"] = [str(class_names[best]) for best in counts.argmax(axis=0)]
        rows["share"] = counts.max(axis=0) / codes.shape[0]
    for header, values in columns.items():
        rows[header] = _newest(values, rows["unit"])
    return rows


def _newest(values: xr.DataArray, units: pd.Series[str]) -> pd.Series[Any]:
    """The newest known value of each unit; NaN, or None for text, where there is none."""
    if "epoch" in values.dims:
        known = values.dropna("epoch", how="all") if values.dtype.kind == "f" else values
        values = known.isel(epoch=-1) if known.sizes["epoch"] else values.isel(epoch=0)
    by_unit = dict(zip(map(str, values["unit"].values), values.values.tolist(), strict=True))
    return units.map(by_unit)


def unit_rows(
    result: xr.Dataset,
    class_names: Sequence[str] | None,
    columns: Mapping[str, xr.DataArray] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """`unit_table` as rows of plain values; numbers that are not known are None."""
    table = unit_table(result, class_names, columns)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
