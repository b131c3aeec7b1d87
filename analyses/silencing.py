"""What the units of a layer can do alone, and what is missing without them: confusion matrices of a silenced network.

After the confusion matrices per cluster of units of MM-PHATE (Xie et al. 2024), which does not say how the other units
were taken out. Here they are silenced in two ways, see `hiddenscope.analyses.stepping.Silence`: in the recurrence, so
that the other units never hear of them, and in the readout alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.clusters import NO_CLUSTER
from hiddenscope.analyses.models import ModelAccess, columns_of
from hiddenscope.analyses.stepping import Mode, Silence

if TYPE_CHECKING:
    from torch import Tensor

Batches = Iterable[tuple[Any, Any]]
"""Batches of (inputs, labels), such as a dataloader."""
Data = tuple[Any, Any] | Batches
"""Inputs and labels as two arrays or tensors, or batches of them. Labels (sample,), or (sample, step)."""

MODES: tuple[Mode, ...] = ("recurrence", "readout")
BATCH = 256


def silence_clusters(
    access: ModelAccess,
    layer: str,
    data: Mapping[str, Data],
    clusters: xr.DataArray,
    *,
    modes: Sequence[Mode] = MODES,
    most_samples: int = 512,
    tick: Callable[[], None] = lambda: None,
) -> xr.Dataset:
    """Confusion matrices of each cluster of units alone and of the network without it, and what each unit is worth.

    The model must answer with logits or log-probabilities, (sample, class) or (sample, step, class).

    Args:
        access: the trained model.
        layer: the layer whose units are silenced.
        data: parts by name, such as ``{"training": …, "validation": …}``.
        clusters: dims (unit,): the name of each unit's cluster, as `cluster_units` gives it. Units of the layer that
            are not listed belong to no cluster: they are silent when a cluster is alone.
        modes: ways of silencing.
        most_samples: sequences of each part that are looked at, evenly taken from two arrays, the first of batches.
        tick: called after every silenced pass of a batch; see `count_passes`.

    Returns:
        ``confusion_whole`` (part, true, predicted), ``confusion_alone`` and ``confusion_without``
        (part, mode, cluster, true, predicted) as counts; ``loss_whole`` (part), ``loss_alone`` and ``loss_without``
        (part, mode, cluster); ``unit_loss`` (part, mode, unit), how much the loss grows without the unit, and
        ``unit_accuracy``, how much the accuracy falls; ``importance`` (unit), the growth of the loss on the last part
        in the first mode. Losses are cross-entropies in nats.

    Raises:
        ValueError: no data, labels that do not fit the answers, or what `ModelAccess.answer` refuses.
    """
    if not data:
        raise ValueError("data= holds no part; give for example {'validation': (inputs, labels)}")
    units = clusters["unit"].values if "unit" in clusters.coords else np.arange(clusters.sizes["unit"])
    columns = columns_of(units, access.width(layer))
    names = _cluster_names(clusters)
    jobs = _jobs(layer, clusters.values, names, columns, access.width(layer), modes)
    shape = {"mode": len(modes), "cluster": len(names), "unit": len(units)}
    found = {part: _tally(access, one, jobs, most_samples, tick) for part, one in data.items()}
    dataset = _arranged(found, shape, len(names))
    dataset = dataset.assign_coords(
        part=list(data), mode=list(modes), cluster=np.array(names, dtype=np.str_), unit=units
    )
    importance = dataset["unit_loss"].isel(part=-1, mode=0, drop=True)
    dataset["importance"] = importance.assign_attrs(long_name="loss without the unit, less the loss with it (nats)")
    return dataset.assign_attrs(
        unit_columns={"importance": "importance (nats)"}, most_samples=most_samples, loss="cross-entropy in nats"
    )


def count_passes(data: Mapping[str, Data], clusters: xr.DataArray, *, modes: Sequence[Mode] = MODES) -> int | None:
    """How often `silence_clusters` will call ``tick``, if all parts are pairs of arrays; else None."""
    per_batch = 1 + len(modes) * (2 * len(_cluster_names(clusters)) + clusters.sizes["unit"])
    if not all(_is_pair(part) for part in data.values()):
        return None
    return sum(per_batch * -(-min(len(part[1]), 512) // BATCH) for part in data.values() if isinstance(part, tuple))


def confusion_matrix(
    predicted: npt.NDArray[np.integer[Any]], labels: npt.NDArray[np.integer[Any]], n_classes: int
) -> npt.NDArray[np.int64]:
    """Counts, shape (true, predicted).

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    pairs = labels.astype(np.int64).ravel() * n_classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def pair_of(data: Data) -> bool:
    """Whether data are inputs and labels, not batches of them."""
    return _is_pair(data)


def _cluster_names(clusters: xr.DataArray) -> list[str]:
    return sorted({str(name) for name in clusters.values} - {NO_CLUSTER}, key=lambda name: (len(name), name))


def _jobs(
    layer: str,
    clusters: npt.NDArray[Any],
    names: Sequence[str],
    columns: npt.NDArray[np.int64],
    width: int,
    modes: Sequence[Mode],
) -> list[Silence | None]:
    """What is silenced in each pass: nothing; then per mode each cluster's others, each cluster, each unit."""
    jobs: list[Silence | None] = [None]
    for mode in modes:
        members = [columns[clusters == name] for name in names]
        jobs += [Silence(layer, np.setdiff1d(np.arange(width), own).tolist(), mode) for own in members]
        jobs += [Silence(layer, own.tolist(), mode) for own in members]
        jobs += [Silence(layer, [int(column)], mode) for column in columns]
    return jobs


def _tally(
    access: ModelAccess, data: Data, jobs: Sequence[Silence | None], most: int, tick: Callable[[], None]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Confusion counts (job, true, predicted) and mean losses (job,) over one part of the data."""
    counts: npt.NDArray[np.int64] | None = None
    losses, total = np.zeros(len(jobs)), 0
    for inputs, labels in _batches(data, most):
        for number, job in enumerate(jobs):
            answer = access.answer(inputs, [] if job is None else [job], stepwise=True)
            logits, truth = aligned(answer, labels)
            if counts is None:
                counts = np.zeros((len(jobs), logits.shape[1], logits.shape[1]), dtype=np.int64)
            counts[number] += confusion_matrix(logits.argmax(dim=1).numpy(), truth.numpy(), logits.shape[1])
            losses[number] += float(cross_entropies(logits, truth).sum())
            total += len(truth) if number == 0 else 0
            tick()
    if counts is None:
        raise ValueError("a part of data= holds no sequence")
    return counts, losses / total


def aligned(answer: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
    """Logits (row, class) and labels (row,): a row per sequence, or per sequence and step where answers have steps."""
    import torch

    truth = torch.as_tensor(np.asarray(labels)).long()
    if answer.ndim == 3 and truth.ndim == 1:
        truth = truth.unsqueeze(1).expand(-1, answer.shape[1])
    if answer.ndim not in (2, 3) or answer.shape[:-1] != truth.shape:
        raise ValueError(
            f"expected answers (sample, class) or (sample, step, class) for labels {tuple(truth.shape)}, "
            f"got {tuple(answer.shape)}; give call= to bring them into this shape"
        )
    if truth.numel() and not 0 <= int(truth.min()) <= int(truth.max()) < answer.shape[-1]:
        raise ValueError(
            f"labels lie in 0..{answer.shape[-1] - 1} for {answer.shape[-1]} logits, "
            f"got {int(truth.min())}..{int(truth.max())}"
        )
    return answer.reshape(-1, answer.shape[-1]), truth.reshape(-1)


def cross_entropies(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of each row, in nats, in double precision."""
    from torch.nn import functional

    return functional.cross_entropy(logits.double(), truth, reduction="none")


def _is_pair(data: Data) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)


def _batches(data: Data, most: int) -> Iterator[tuple[Any, Any]]:
    if isinstance(data, tuple) and _is_pair(data):
        inputs, labels = data
        chosen = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(np.int64)
        for start in range(0, len(chosen), BATCH):
            rows = chosen[start : start + BATCH]
            yield inputs[rows], labels[rows]
        return
    seen = 0
    for batch in data:
        inputs, labels = batch[0], batch[1]
        yield inputs, labels
        seen += len(labels)
        if seen >= most:
            return


def _arranged(
    found: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]], shape: Mapping[str, int], n: int
) -> xr.Dataset:
    """The passes of `_jobs`, by what they are."""
    counts = np.stack([one for one, _ in found.values()])
    losses = np.stack([one for _, one in found.values()])
    parts = len(found)
    by_mode = counts[:, 1:].reshape(parts, shape["mode"], 2 * n + shape["unit"], *counts.shape[2:])
    losses_by_mode = losses[:, 1:].reshape(parts, shape["mode"], 2 * n + shape["unit"])
    accuracy = np.trace(counts, axis1=2, axis2=3) / counts.sum(axis=(2, 3))
    accuracy_by_mode = accuracy[:, 1:].reshape(losses_by_mode.shape)
    matrix = ("true", "predicted")
    return xr.Dataset(
        {
            "confusion_whole": (("part", *matrix), counts[:, 0]),
            "confusion_alone": (("part", "mode", "cluster", *matrix), by_mode[:, :, :n]),
            "confusion_without": (("part", "mode", "cluster", *matrix), by_mode[:, :, n : 2 * n]),
            "loss_whole": (("part",), losses[:, 0]),
            "loss_alone": (("part", "mode", "cluster"), losses_by_mode[:, :, :n]),
            "loss_without": (("part", "mode", "cluster"), losses_by_mode[:, :, n : 2 * n]),
            "unit_loss": (("part", "mode", "unit"), losses_by_mode[:, :, 2 * n :] - losses[:, :1, None]),
            "unit_accuracy": (("part", "mode", "unit"), accuracy[:, :1, None] - accuracy_by_mode[:, :, 2 * n :]),
        }
    )
