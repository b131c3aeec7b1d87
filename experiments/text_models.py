"""Small networks that read text, trained in plain torch while the monitor's recorder looks on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from hiddenscope.callbacks.recording import record

Ints = npt.NDArray[np.int64]


class Classifier(nn.Module):
    """Tokens through an embedding and a GRU; the state after the last token decides.

    Args:
        n_tokens: size of the vocabulary; token 0 fills up.
        width: of the embedding.
        units: of the GRU.
        classes: of the answer.
    """

    def __init__(self, n_tokens: int, *, width: int = 32, units: int = 64, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width, padding_idx=0)
        self.gru = nn.GRU(width, units, batch_first=True)
        self.answer = nn.Linear(units, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (sample, class) of tokens (sample, step)."""
        lengths = (tokens != 0).sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        logits: Tensor = self.answer(last[0])
        return logits


class NextToken(nn.Module):
    """Tokens through an embedding and an LSTM; every state says what comes next.

    Args:
        n_tokens: size of the vocabulary.
        width: of the embedding.
        units: of the LSTM.
    """

    def __init__(self, n_tokens: int, *, width: int = 32, units: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width)
        self.lstm = nn.LSTM(width, units, batch_first=True)
        self.answer = nn.Linear(units, n_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (sample, step, token) of the token after each."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.answer(states)
        return logits


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        epochs: passes that are recorded, after the untrained network.
        batch: sequences per step.
        rate: of Adam.
        clip: largest norm of a gradient.
        seed: of the order of the sequences.
    """

    epochs: int
    batch: int
    rate: float
    clip: float = 1.0
    seed: int = 0


def train(
    model: nn.Module,
    folder: Path,
    *,
    plan: Plan,
    sequences: Callable[[np.random.Generator], tuple[Ints, Ints]],
    probe: Ints,
    token_names: Iterable[str],
    measure: Callable[[nn.Module], dict[str, float]],
    quantities: tuple[str, ...] = ("h", "inputs"),
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[dict[str, float]]:
    """Train a network and record it in ``folder``, which is made anew; what was measured at each epoch.

    Args:
        model: gives logits of tokens.
        folder: of the run.
        plan: how.
        sequences: tokens (sample, step) and targets of one epoch.
        probe: the tokens (sample, step) on which states are recorded.
        token_names: of the vocabulary.
        measure: numbers to log of a network in evaluation mode.
        quantities: what is recorded.
        progress: wraps the epochs.
    """
    if folder.exists():
        shutil.rmtree(folder)
    rng = np.random.default_rng(plan.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
    log: list[dict[str, float]] = []
    with record(
        model,
        torch.from_numpy(probe),
        folder,
        record=quantities,
        token_names=list(token_names),
        max_mb=64.0,
        max_samples=len(probe),
        strict=True,
    ) as recorder:

        def note(epoch: int, **found: float) -> None:
            model.eval()
            with torch.no_grad():
                numbers = {**found, **measure(model)}
            recorder.snapshot(float(epoch), **numbers)
            log.append({"epoch": float(epoch), **numbers})

        note(-1)
        for epoch in progress(range(plan.epochs)):
            note(epoch, train_loss=_pass(model, optimizer, *sequences(rng), plan=plan, rng=rng))
    return log


def _pass(
    model: nn.Module, optimizer: Any, tokens: Ints, targets: Ints, *, plan: Plan, rng: np.random.Generator
) -> float:
    """One epoch; the mean loss over it."""
    model.train()
    order = rng.permutation(len(tokens))
    total = 0.0
    for start in range(0, len(order), plan.batch):
        chosen = order[start : start + plan.batch]
        logits = model(torch.from_numpy(tokens[chosen]))
        wanted = torch.from_numpy(targets[chosen])
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / max(len(order), 1)
