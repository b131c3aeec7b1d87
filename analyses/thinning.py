"""How much of a long run an analysis looks at: evenly chosen epochs and steps, never fewer units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.run import Run


def evenly(count: int, keep: int) -> npt.NDArray[np.intp]:
    """``keep`` positions out of ``count``, evenly spread, the first and the last among them.

    >>> evenly(10, 4)
    array([0, 3, 6, 9])
    """
    return np.unique(np.linspace(0, count - 1, max(1, min(keep, count))).round().astype(np.intp))


def thinned_trace(run: Run, layer: str, *, epochs: int, steps: int) -> tuple[xr.DataArray, str]:
    """The states of a layer at no more than so many epochs and steps, and a note on what was left out (or empty).

    Args:
        run: pinned to a commit.
        layer: one of its layers.
        epochs: most epochs, evenly taken.
        steps: most steps, evenly taken.
    """
    all_epochs, all_steps = run.epochs, run.description.layer(layer).steps
    rows, columns = evenly(len(all_epochs), epochs), evenly(len(all_steps), steps)
    trace = run.trace(layer, epochs=all_epochs[rows], steps=all_steps[columns])
    kept = (("epochs", len(rows), len(all_epochs)), ("steps", len(columns), len(all_steps)))
    return trace, " and ".join(f"{few:,} of {many:,} {name}" for name, few, many in kept if few < many)
