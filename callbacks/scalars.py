"""Cheap numbers about a layer, logged with every epoch so that loggers draw them and early stopping can watch them.

They are computed in the space of activations, in milliseconds; the entropies of the embedding are another, better and
slower thing.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hiddenscope.errors import RecordingError

_MOST_ROWS = 1024
_MOST_UNITS = 128


def dispersion(states: Tensor) -> Tensor:
    """How differently the units answer to different sequences.

    The standard deviation over samples, averaged over units and steps; 0 when all sequences look the same to the layer.

    Args:
        states: (step, unit, sample); NaN where a sequence has ended.

    >>> dispersion(torch.tensor([[[0.0, 2.0], [1.0, 1.0]]])).item()
    0.5
    """
    if _is_whole(states):
        return (states - states.mean(dim=-1, keepdim=True)).square_().mean(dim=-1).sqrt().mean()
    there = ~torch.isnan(states)
    count = there.sum(dim=-1)
    filled = torch.where(there, states, 0.0)
    mean = filled.sum(dim=-1) / count.clamp(min=1)
    squares = torch.where(there, (states - mean.unsqueeze(-1)) ** 2, 0.0).sum(dim=-1) / count.clamp(min=1)
    known = count > 0
    return torch.where(known, squares.sqrt(), 0.0).sum() / known.sum()


def entropy(states: Tensor) -> Tensor:
    """How many directions of activation space the layer uses: ln((tr C)**2 / tr(C**2)), in nats.

    C is the covariance of the units over samples and steps. This is the Rényi entropy of order 2 of C's normalized
    spectrum, so its exponential is the participation ratio: 0 when one direction holds all variance, ln(units) when
    all hold the same. A layer that does not vary at all has 0. Large layers are thinned, evenly, to 128 units and 1,024
    rows.

    Args:
        states: (step, unit, sample); rows with NaN or infinity are left out. NaN when fewer than two rows remain.

    >>> line = torch.outer(torch.linspace(0, 1, 8), torch.tensor([1.0, -1.0]))
    >>> round(entropy(line.reshape(8, 2, 1)).item(), 6)
    0.0
    """
    units = states[:, :: -(-states.shape[1] // _MOST_UNITS)]
    all_rows = states.shape[0] * states.shape[2]
    chosen = torch.arange(0, all_rows, -(-all_rows // _MOST_ROWS), device=states.device)
    rows = units[chosen // states.shape[2], :, chosen % states.shape[2]]
    good = torch.isfinite(rows).all(dim=1)
    count = good.sum()
    clean = torch.where(good.unsqueeze(1), rows, 0.0).double()
    centered = torch.where(good.unsqueeze(1), clean - clean.sum(dim=0) / count, 0.0)
    gram = centered.T @ centered if centered.shape[1] <= centered.shape[0] else centered @ centered.T
    total, squared = gram.diagonal().sum(), (gram**2).sum()
    value = torch.where(squared > 0, torch.log(total**2 / squared.clamp(min=torch.finfo(squared.dtype).tiny)), 0.0)
    return torch.where(count > 1, value, torch.nan)


def change(states: Tensor, before: Tensor) -> Tensor:
    """Root mean square difference of each activation from what it was at the record before; NaN steps left out.

    >>> change(torch.full((2, 3, 4), 0.5), torch.zeros(2, 3, 4)).item()
    0.5
    """
    difference = states - before
    if _is_whole(difference):
        return difference.square().mean().sqrt()
    there = ~torch.isnan(difference)
    return (torch.where(there, difference, 0.0).square().sum() / there.sum()).sqrt()


def memberships(labels: npt.NDArray[np.integer] | None) -> Tensor | None:
    """Which sequence is of which class, (sample, class) of zeros and ones; None for fewer than two classes.

    >>> memberships(np.array([7, 3, 7])).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    classes = np.unique(labels) if labels is not None else ()
    if labels is None or len(classes) < 2:
        return None
    return torch.from_numpy((labels[:, None] == classes).astype(np.float64))


def separability(states: Tensor, classes: Tensor) -> Tensor:
    """How well the classes of the sequences separate: the mean silhouette of the sequences' mean states.

    A sequence's silhouette is (b - a) / max(a, b), with a its mean distance to the others of its class and b to those
    of the nearest other class; 0 when it is alone in its class. From -1 to 1, about 0 when the classes overlap. The
    same number as `hiddenscope.analyses.separability` gives. NaN when a sequence has infinite states, or none at all.

    Args:
        states: (step, unit, sample); NaN where a sequence has ended.
        classes: from `memberships`.

    >>> line = torch.tensor([0.0, 1.0, 9.0, 10.0]).reshape(1, 1, 4)
    >>> round(separability(line, memberships(np.array([0, 0, 1, 1]))).item(), 4)
    0.8885
    """
    if _is_whole(states):
        points = states.mean(dim=0, dtype=torch.float64).T
    else:
        points = torch.nanmean(states, dim=0, dtype=torch.float64).T
    points = points - points.mean(dim=0)
    squares = points.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp(min=0).fill_diagonal_(0).sqrt()
    member = classes.to(states.device)
    sums, count = distances @ member, member.sum(dim=0)
    own = member > 0
    others = (member * count).sum(dim=1) - 1
    inner = (member * sums).sum(dim=1) / others.clamp(min=1)
    outer = torch.where(own, torch.inf, sums / count).amin(dim=1)
    larger = torch.maximum(inner, outer)
    value = torch.where((others > 0) & (larger > 0), (outer - inner) / larger.clamp(min=1e-300), 0.0)
    return torch.where(torch.isfinite(squares).all(), value.mean(), torch.nan)


def _is_whole(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: one pass, where the careful way takes many. A GPU is not asked: it would
    have to be waited for."""
    return values.device.type == "cpu" and math.isfinite(values.sum().item())


_ALWAYS = ("dispersion", "entropy", "change", "nonfinite", "phase")


def scalar_names(layers: Sequence[str], labels: npt.NDArray[np.integer] | None) -> list[str]:
    """The names of all scalars that records of these layers come with, from the second record on.

    >>> scalar_names(["lstm"], np.array([0, 1]))[-3:]
    ['lstm/separability', 'phase', 'separability']
    """
    each = (*_ALWAYS, "separability") if memberships(labels) is not None else _ALWAYS
    names = [f"{layer}/{scalar}" for layer in layers for scalar in each]
    return [*names, *(scalar for scalar in ("phase", "separability") if scalar in each)]


def check_wanted(
    wanted: Mapping[str, str], prefix: str, layers: Sequence[str], labels: npt.NDArray[np.integer] | None
) -> None:
    """Raise `RecordingError` when something waits for a scalar that there will not be.

    Args:
        wanted: metrics, with what waits for them; those that do not begin with ``prefix/`` are somebody else's.
        prefix: what the scalars' names begin with.
        layers: the recorded layers.
        labels: of the probe.
    """
    names = scalar_names(layers, labels)
    for metric, who in wanted.items():
        owner, _, name = metric.partition("/")
        if owner != prefix or name in names:
            continue
        if name.endswith("separability") and memberships(labels) is None:
            raise RecordingError(
                f'{who} waits for "{metric}", which needs sequences of two classes at least, and the probe has '
                f"{'no labels' if labels is None else 'one class'}; give a probe with labels, one whole number per "
                "sequence, as the last part of the batch"
            )
        near = difflib.get_close_matches(name, names, n=1)
        hint = f'; did you mean "{prefix}/{near[0]}"?' if near else ""
        raise RecordingError(
            f'{who} waits for "{metric}", which is not recorded; there are '
            f"{', '.join(f'{prefix}/{each}' for each in names[:8])}{', …' if len(names) > 8 else ''}{hint}"
        )


def summarize(
    values: dict[str, Tensor],
    before: dict[str, Tensor] | None,
    nonfinite: dict[str, Tensor],
    classes: Tensor | None = None,
) -> dict[str, float]:
    """The scalars of every layer, named ``layer/scalar``. ``change`` is there when there is something before it.

    ``nonfinite`` is the number of activations that are NaN or infinite. ``separability`` is there when the classes of
    the sequences are known (`memberships`), and once more without a layer's name: that of the last layer's states.
    """
    found: dict[str, Tensor] = {}
    for layer, states in values.items():
        found[f"{layer}/dispersion"] = dispersion(states)
        found[f"{layer}/entropy"] = entropy(states)
        if before is not None:
            found[f"{layer}/change"] = change(states, before[layer])
        found[f"{layer}/nonfinite"] = nonfinite[layer]
        if classes is not None:
            found[f"{layer}/separability"] = torch.where(
                nonfinite[layer] == 0, separability(states, classes), torch.nan
            )
            if not any(layer.startswith(f"{other}.") for other in values):  # not a layer's cell states or gates
                found["separability"] = found[f"{layer}/separability"]
    if not found:
        return {}
    together = torch.stack([value.to(torch.float64) for value in found.values()])  # one transfer from the device
    return dict(zip(found, together.tolist(), strict=True))
