"""Recurrent classifiers trained by a plain loop and recorded as they learn: what the experiments have in common."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hiddenscope._version import __version__
from hiddenscope.callbacks.recording import record
from hiddenscope.experiments.datasets.sequences import Sequences, Split
from hiddenscope.run import Run, open_run

Cell = Literal["lstm", "gru", "rnn"]
Readout = Literal["last", "mean", "flatten", "every step"]
LAYER = "recurrent"
_KINDS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@dataclass(frozen=True)
class Recipe:
    """A network and its training.

    Attributes:
        cell: of the one recurrent layer.
        units: of that layer.
        readout: what the linear readout sees: the last state, the mean of all states, all states at once, or each
            state by itself, with a loss at every step.
        learning_rate: of Adam; 0 leaves the network untrained.
        batch_size: sequences.
        epochs: passes over the training part.
        per_class: probe sequences of each class, from the held-out part.
        largest_gradient: norm to which gradients are cut; None does not cut.
    """

    cell: Cell = "lstm"
    units: int = 30
    readout: Readout = "mean"
    learning_rate: float = 3e-3
    batch_size: int = 64
    epochs: int = 20
    per_class: int = 6
    largest_gradient: float | None = 1.0


class RecurrentClassifier(nn.Module):
    """One recurrent layer and a linear readout.

    Args:
        recipe: the network.
        n_steps: of the sequences, which matters to the readout "flatten".
        n_features: per step.
        n_classes: to tell apart.
    """

    def __init__(self, recipe: Recipe, *, n_steps: int, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.readout_of = recipe.readout
        self.recurrent = _KINDS[recipe.cell](n_features, recipe.units, batch_first=True)
        self.readout = nn.Linear(recipe.units * (n_steps if recipe.readout == "flatten" else 1), n_classes)

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (sequence, class), or (sequence, step, class) for the readout "every step"."""
        states = self.recurrent(sequences)[0]
        if self.readout_of == "last":
            states = states[:, -1]
        elif self.readout_of == "mean":
            states = states.mean(dim=1)
        elif self.readout_of == "flatten":
            states = states.flatten(start_dim=1)
        return cast(Tensor, self.readout(states))


def loss_and_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats, and which answers are right: per sequence, or per sequence and step.

    Args:
        logits: (sequence, class) or (sequence, step, class).
        labels: (sequence,).
    """
    if logits.ndim == 3:
        labels = labels[:, None].expand(logits.shape[:2])
    loss = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
    return loss, logits.argmax(dim=-1) == labels


def build(recipe: Recipe, split: Split, *, seed: int) -> RecurrentClassifier:
    """The untrained network; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RecurrentClassifier(
            recipe,
            n_steps=split.train.inputs.shape[1],
            n_features=split.train.inputs.shape[2],
            n_classes=len(split.train.label_names),
        )


def trained(
    folder: Path,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    kept_epochs: Callable[[int], bool] | None = None,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Run:
    """Train the network of a recipe and record it; a run that is there already, of the same recipe, is used again.

    Each epoch has the metrics ``train_loss`` and ``train_accuracy`` (over the batches as they were trained on),
    ``val_loss`` and ``val_accuracy`` (of the held-out part; nothing is chosen by them). Epoch -1 is the untrained
    network. The final parameters are in ``model.pt``.

    Args:
        folder: for this run alone; whatever else is in it is removed.
        split: standardized.
        recipe: the network and its training.
        seed: of weights, batches and probe.
        kept_epochs: which epochs are recorded; None records all.
        watch: wraps the epochs, as a progress bar does.
    """
    told = json.dumps({"version": __version__, "seed": seed, "data": _print(split), **asdict(recipe)}, sort_keys=True)
    mark = folder / "recipe.json"
    if mark.exists() and mark.read_text() == told:
        return open_run(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = build(recipe, split, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    inputs, labels = torch.from_numpy(split.train.inputs), torch.from_numpy(split.train.labels)
    draws = np.random.default_rng(seed)
    chosen = probe(split.held_out, per_class=recipe.per_class, seed=seed)
    with record(
        model, _batch(chosen), folder, layers=LAYER, label_names=split.train.label_names, max_steps=1_000, strict=True
    ) as recorder:
        recorder.snapshot(-1, **evaluate(model, split.held_out, "val"))
        for epoch in watch(range(recipe.epochs)):
            metrics = _train_epoch(model, optimizer, inputs, labels, recipe, draws.permutation(len(inputs)))
            if kept_epochs is None or kept_epochs(epoch) or epoch == recipe.epochs - 1:
                recorder.snapshot(epoch, **metrics, **evaluate(model, split.held_out, "val"))
    torch.save(model.state_dict(), folder / "model.pt")
    mark.write_text(told)
    return open_run(folder)


def load(folder: Path, split: Split, recipe: Recipe) -> RecurrentClassifier:
    """The network that `trained` left in a folder, in evaluation mode."""
    model = build(recipe, split, seed=0)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    return model.eval()


def evaluate(model: nn.Module, part: Sequences, name: str) -> dict[str, float]:
    """``<name>_loss`` in nats and ``<name>_accuracy`` of all sequences of a part."""
    total, hits, answers = 0.0, 0, 0
    with torch.no_grad():
        for begin in range(0, len(part), 512):
            labels = torch.from_numpy(part.labels[begin : begin + 512])
            loss, right = loss_and_hits(model(torch.from_numpy(part.inputs[begin : begin + 512])), labels)
            total += float(loss) * len(labels)
            hits, answers = hits + int(right.sum()), answers + right.numel()
    return {f"{name}_loss": total / len(part), f"{name}_accuracy": hits / answers}


def probe(part: Sequences, *, per_class: int, seed: int) -> Sequences:
    """A few sequences of each class, drawn at random, in the order of the classes.

    Raises:
        ValueError: a class has fewer than ``per_class`` sequences.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for label, name in enumerate(part.label_names):
        members = np.flatnonzero(part.labels == label)
        if len(members) < per_class:
            raise ValueError(f"class {name} of {part.name} has {len(members)} sequences, {per_class} were asked for")
        chosen.append(np.sort(generator.choice(members, per_class, replace=False)))
    picked = np.concatenate(chosen)
    groups = part.groups[picked]
    return replace(part, inputs=part.inputs[picked], labels=part.labels[picked], groups=groups)


def reduced(split: Split, *, every_step: int = 1, train: int | None = None, held_out: int | None = None) -> Split:
    """A smaller split: every so many steps, and sequences taken evenly from each part."""

    def part(data: Sequences, count: int | None) -> Sequences:
        keep = np.arange(len(data)) if count is None else np.unique(np.linspace(0, len(data) - 1, count).astype(int))
        inputs = np.ascontiguousarray(data.inputs[keep, ::every_step])
        return replace(data, inputs=inputs, labels=data.labels[keep], groups=data.groups[keep])

    return Split(part(split.train, train), part(split.held_out, held_out))


def deviations(paper: Recipe, used: Recipe, others: Sequence[tuple[str, str, str]] = ()) -> list[dict[str, str]]:
    """What differs from the paper's settings, as rows of a table.

    Args:
        paper: its recipe; what it does not tell is as here.
        used: the recipe of this experiment.
        others: more rows: what, in the paper, here.

    >>> deviations(Recipe(units=20), Recipe(units=30), [("data", "UCI HAR", "watch")])[0]
    {'setting': 'units', 'paper': '20', 'here': '30'}
    """
    one, other = asdict(paper), asdict(used)
    rows = [
        {"setting": name.replace("_", " "), "paper": str(one[name]), "here": str(other[name])}
        for name in one
        if one[name] != other[name]
    ]
    return rows + [{"setting": what, "paper": there, "here": here} for what, there, here in others]


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    order: npt.NDArray[np.int64],
) -> dict[str, float]:
    total, hits, answers = 0.0, 0, 0
    for begin in range(0, len(order), recipe.batch_size):
        batch = torch.from_numpy(order[begin : begin + recipe.batch_size])
        loss, right = loss_and_hits(model(inputs[batch]), labels[batch])
        total += float(loss.detach()) * len(batch)
        hits, answers = hits + int(right.sum()), answers + right.numel()
        if recipe.learning_rate == 0:
            continue
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.largest_gradient is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.largest_gradient)
        optimizer.step()
    return {"train_loss": total / len(order), "train_accuracy": hits / answers}


def _batch(part: Sequences) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.inputs), torch.from_numpy(part.labels)


def _print(split: Split) -> str:
    """A short text that changes when the data do."""
    import hashlib

    digest = hashlib.sha256()
    for part in (split.train, split.held_out):
        digest.update(str(part.inputs.shape).encode())
        digest.update(np.ascontiguousarray(part.inputs).tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()[:16]
