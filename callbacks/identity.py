"""What tells monitors of different options apart in a checkpoint: a short digest, the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hiddenscope.callbacks.batches import tensors_of
from hiddenscope.callbacks.probe import probe_of_batches


def identity(*options: Any) -> str:
    """A short digest of options.

    >>> identity(None, "lstm", 1) == identity(None, "lstm", 1) != identity(None, "gru", 1)
    True
    """
    return hashlib.sha256("; ".join(map(_plain, options)).encode()).hexdigest()[:8]


def _plain(option: Any) -> str:
    if option is None or isinstance(option, (str, int, float)):
        return repr(option)
    if isinstance(option, Mapping):
        return repr(sorted(option))
    if callable(option) and not isinstance(option, torch.Tensor):
        return str(getattr(option, "__qualname__", type(option).__qualname__))
    if isinstance(option, torch.Tensor) or any(True for _ in tensors_of(option)):
        return probe_of_batches([option]).fingerprint
    if isinstance(option, Sequence):
        return repr(list(option))
    return type(option).__qualname__
