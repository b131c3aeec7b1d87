"""The probe: the fixed sequences whose hidden states are recorded again and again while the model changes.

Without one, a small sample is drawn from a dataloader: seeded, the same after a resume, with as many sequences of one
class as of another as far as the data allows.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from hiddenscope.callbacks.batches import LABEL_NAMES, copied, describe, labels_of, tensors_of
from hiddenscope.callbacks.undisturbed import random_state_kept
from hiddenscope.errors import RecordingError

IntArray = npt.NDArray[np.int64]

_MOST_LABELS_READ = 1_024
"""Data sets that do not list their labels are read item by item to find them; this bounds the reading."""


@dataclass(frozen=True)
class Probe:
    """Batches as the model takes them, with the position of each sequence in its data set and its label if known."""

    batches: tuple[Any, ...]
    positions: IntArray | None = None
    labels: IntArray | None = None

    def __post_init__(self) -> None:
        if not self.batches:
            raise RecordingError("the probe is empty; give at least one batch")

    @property
    def fingerprint(self) -> str:
        """A digest of everything in the probe: equal for equal contents, on any machine."""
        digest = hashlib.sha256()
        for batch in self.batches:
            digest.update(describe(batch).encode())
            for tensor in tensors_of(batch):
                plain = tensor.detach().cpu()
                plain = plain.float() if plain.dtype == torch.bfloat16 else plain
                digest.update(np.ascontiguousarray(plain.numpy()).tobytes())
        return digest.hexdigest()[:16]

    @property
    def inputs(self) -> npt.NDArray[np.floating | np.integer] | None:
        """The probe's sequences as one array, where they are exactly that.

        Numbers are (sample, step, feature), float32; tokens are (sample, step), int64.
        """
        parts = [batch if isinstance(batch, torch.Tensor) else _first_part(batch) for batch in self.batches]
        if not all(isinstance(part, torch.Tensor) and _is_plain(part) for part in parts):
            return None
        if len({(part.shape[1:], part.is_floating_point()) for part in parts}) > 1:
            return None
        return np.concatenate(
            [part.detach().to(torch.float32 if part.ndim == 3 else torch.int64).cpu().numpy() for part in parts]
        )


def _is_plain(part: torch.Tensor) -> bool:
    """Whether a tensor holds sequences of numbers or of tokens."""
    whole = not part.is_floating_point() and not part.is_complex() and part.dtype != torch.bool
    return (part.ndim == 3 and part.is_floating_point()) or (part.ndim == 2 and whole)


def _first_part(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return batch.get("input_ids")
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence) and len(batch) > 0:
        return batch[0]
    return None


def as_probe(source: Any, *, max_samples: int, seed: int) -> Probe:
    """A probe from what a user gives.

    Args:
        source: a batch (tensor, array, packed sequence, tuple, list, mapping), which is taken whole; a dataloader or
            data set, from which at most ``max_samples`` sequences are sampled; or a function that returns one of these.
        max_samples: most sequences taken from a dataloader or data set.
        seed: of the sampling.

    Raises:
        RecordingError: there is nothing in it, or it can be read only once.
    """
    if isinstance(source, Probe):
        return source
    if isinstance(source, np.ndarray):
        source = torch.from_numpy(source)
    if _is_batch(source):
        return probe_of_batches([source])
    if isinstance(source, DataLoader):
        return sample_loader(source, max_samples=max_samples, seed=seed)
    if isinstance(source, Dataset):
        loader: DataLoader[Any] = DataLoader(source, batch_size=None if isinstance(source, IterableDataset) else 64)
        return sample_loader(loader, max_samples=max_samples, seed=seed)
    if callable(source) and not isinstance(source, nn.Module):
        with random_state_kept(seed):
            made = source()
        return as_probe(made, max_samples=max_samples, seed=seed)
    if isinstance(source, Iterator):
        raise RecordingError(
            "the probe is an iterator, which can be read only once; give a list of batches' data or one batch"
        )
    if isinstance(source, Iterable):
        with random_state_kept(seed):
            return _take_batches(source, max_samples=max_samples)
    raise RecordingError(f"probe= needs a batch, a dataloader or a function that returns one, got {source!r}")


def probe_of_batches(batches: Sequence[Any], positions: IntArray | None = None) -> Probe:
    """A probe of these batches, copied to the CPU, with their labels if every batch has them."""
    kept = tuple(copied(batch, torch.device("cpu")) for batch in batches)
    labels = [labels_of(batch) for batch in kept]
    known = [label.numpy() for label in labels if label is not None]
    together = np.concatenate(known).astype(np.int64) if known and len(known) == len(kept) else None
    return Probe(kept, positions, together)


def check_label_names(probe: Probe, names: Sequence[str] | None) -> None:
    """Raise `RecordingError` when classes have names, and the sequences of ``probe`` no classes, or others."""
    if names is None:
        return
    if probe.labels is None:
        raise RecordingError(
            "label_names= names classes, and the probe has none: give its labels, one whole number per sequence, as "
            f"the last part of the batch or as its entry {' or '.join(map(repr, LABEL_NAMES))}, "
            "or leave label_names= out"
        )
    if probe.labels.size and not 0 <= probe.labels.min() <= probe.labels.max() < len(names):
        raise RecordingError(
            f"label_names= names classes 0 to {len(names) - 1}, but the probe has labels from {probe.labels.min()} to "
            f"{probe.labels.max()}"
        )


def _is_batch(source: Any) -> bool:
    return isinstance(source, (torch.Tensor, PackedSequence, Mapping, list, tuple))


def sample_loader(loader: DataLoader[Any], *, max_samples: int, seed: int) -> Probe:
    """A seeded sample of what ``loader`` serves, balanced over the classes, without running the loader.

    Items are taken from the data set itself and collated by the loader, so neither its random generators nor its
    worker processes take part, and the training sees its batches in the order it would have seen them anyway.

    Raises:
        RecordingError: the data set is empty, or is an iterator that can be read only once.
    """
    if isinstance(loader.dataset, IterableDataset):
        return _sample_stream(loader, max_samples=max_samples, seed=seed)
    dataset: Any = loader.dataset
    if len(dataset) == 0:
        raise RecordingError("the dataloader to draw a probe from is empty; give probe= a batch")
    with random_state_kept(seed):
        chosen = choose_items(dataset, max_samples=max_samples, seed=seed)
        if loader.batch_size is None:  # items are batches already
            return _take_batches((dataset[int(index)] for index in chosen), max_samples=max_samples)
        return probe_of_batches(_collated(dataset, chosen, loader), chosen)


def _collated(dataset: Any, chosen: IntArray, loader: DataLoader[Any]) -> list[Any]:
    """The chosen items as batches; large ones, unless the loader's own collate function wants them small."""
    collate = loader.collate_fn
    own_size = loader.batch_size or 1
    items = [dataset[int(index)] for index in chosen]
    for size in dict.fromkeys((max(own_size, 64), own_size)):
        try:
            return [collate(items[start : start + size]) for start in range(0, len(items), size)]
        except (RuntimeError, ValueError, TypeError):
            if size == own_size:
                raise
    raise AssertionError("unreachable")


def _sample_stream(loader: DataLoader[Any], *, max_samples: int, seed: int) -> Probe:
    dataset: Any = loader.dataset
    if isinstance(dataset, Iterator):
        raise RecordingError(
            "the data set can be read only once, and a probe drawn from it would be missing from the training; "
            "give probe= a batch"
        )
    with random_state_kept(seed):
        if loader.batch_size is None:
            return _take_batches(dataset, max_samples=max_samples)
        items = list(itertools.islice(iter(dataset), max_samples))
        if not items:
            raise RecordingError("the dataloader to draw a probe from is empty; give probe= a batch")
        collate, size = loader.collate_fn, loader.batch_size
        return probe_of_batches([collate(items[start : start + size]) for start in range(0, len(items), size)])


def _take_batches(batches: Iterable[Any], *, max_samples: int) -> Probe:
    """The first batches, until ``max_samples`` sequences are there (counted by their first tensor's first axis)."""
    taken: list[Any] = []
    count = 0
    for batch in batches:
        size = next((tensor.shape[0] for tensor in tensors_of(batch) if tensor.ndim), 1)
        if taken and count + size > max_samples:
            break
        taken.append(batch)
        count += size
        if count >= max_samples:
            break
    return probe_of_batches(taken)


def choose_items(dataset: Any, *, max_samples: int, seed: int) -> IntArray:
    """Positions of at most ``max_samples`` items, in ascending order, classes as evenly represented as they can be."""
    count = len(dataset)
    if count <= max_samples:
        return np.arange(count, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    labels = _listed_labels(dataset)
    if labels is None:
        order = order[: max(_MOST_LABELS_READ, max_samples)] if _has_label(dataset, order[0]) else order[:max_samples]
        labels = _read_labels(dataset, order)
    else:
        labels = labels[order]
    if labels is None:
        return np.sort(order[:max_samples])
    return np.sort(order[balanced(labels, max_samples)])


def balanced(labels: IntArray, size: int) -> IntArray:
    """Indices of ``size`` entries, taking the classes in turn, so that each has as many as it can.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2])
    >>> labels[balanced(labels, 6)].tolist()
    [0, 1, 2, 0, 2, 0]
    """
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turn[members] = np.arange(len(members))
    return np.lexsort((labels, turn))[:size].astype(np.int64)


def _listed_labels(dataset: Any) -> IntArray | None:
    """Labels that the data set holds as one array: the last tensor of a TensorDataset, or ``targets`` or ``labels``."""
    tensors = getattr(dataset, "tensors", None)
    held = tensors[-1] if isinstance(tensors, tuple) and len(tensors) > 1 else None
    for name in ("targets", "labels"):
        held = getattr(dataset, name, None) if held is None else held
    if held is None:
        return None
    try:
        labels = np.asarray(held)
    except (TypeError, ValueError, RuntimeError):
        return None
    if labels.shape != (len(dataset),) or not np.issubdtype(labels.dtype, np.integer):
        return None
    return labels.astype(np.int64)


def _label_of_item(item: Any) -> int | None:
    batch = default_collate([item]) if isinstance(item, (tuple, list, Mapping)) else None
    labels = None if batch is None else labels_of(batch)
    return None if labels is None or len(labels) != 1 else int(labels[0])


def _has_label(dataset: Any, index: int) -> bool:
    try:
        return _label_of_item(dataset[int(index)]) is not None
    except (TypeError, ValueError, RuntimeError):
        return False


def _read_labels(dataset: Any, order: IntArray) -> IntArray | None:
    try:
        labels = [_label_of_item(dataset[int(index)]) for index in order]
    except (TypeError, ValueError, RuntimeError):
        return None
    known = [label for label in labels if label is not None]
    return np.array(known, dtype=np.int64) if len(known) == len(labels) else None
