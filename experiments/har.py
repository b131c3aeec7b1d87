"""Human-activity recognition with a small LSTM: the model and the data of the demo.

In the spirit of the HAR experiment of MM-PHATE (Xie et al. 2024, section 4), which trains an LSTM of 30 units with one
softmax per step. Here the readout looks at the mean of the hidden states over time, which generalizes better to
subjects that the network has not seen.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hiddenscope.experiments.datasets.sequences import Sequences, Split

Batch = tuple[Tensor, Tensor]


class SequenceClassifier(pl.LightningModule):
    """An LSTM whose hidden states, averaged over time, are read out linearly.

    Logs ``train_loss``, ``train_accuracy``, ``val_loss`` and ``val_accuracy`` for each epoch; losses in nats.

    Args:
        n_features: features per step.
        n_classes: classes to tell apart.
        hidden_size: units of the LSTM.
        learning_rate: of Adam.
    """

    def __init__(self, n_features: int, n_classes: int, *, hidden_size: int = 30, learning_rate: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.lstm = nn.LSTM(n_features, hidden_size, batch_first=True)
        self.readout = nn.Linear(hidden_size, n_classes)

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (sequence, class) of ``sequences`` (sequence, step, feature)."""
        states, _ = self.lstm(sequences)
        return cast(Tensor, self.readout(states.mean(dim=1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        return self._loss(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy on the held-out part; nothing is chosen by them."""
        self._loss(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def _loss(self, batch: Batch, part: str) -> Tensor:
        sequences, labels = batch
        logits = self(sequences)
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        metrics = {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss


class SequenceData(pl.LightningDataModule):
    """A split as dataloaders: the training part shuffled, the held-out part as validation.

    Args:
        split: standardized already.
        batch_size: sequences per batch.
        seed: of the shuffling, which is the same in every process and leaves the global generator alone.
    """

    def __init__(self, split: Split, *, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.split = split
        self.batch_size = batch_size
        self.seed = seed

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.split.train.label_names

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches of the training part."""
        return DataLoader(tensors(self.split.train), self.batch_size, shuffle=True, generator=self._generator())

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The held-out part, in order."""
        return DataLoader(tensors(self.split.held_out), 8 * self.batch_size, generator=self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)  # without one, a loader draws from the global generator


def tensors(part: Sequences) -> TensorDataset:
    """Inputs and labels as a torch data set."""
    return TensorDataset(torch.from_numpy(part.inputs), torch.from_numpy(part.labels))


def probe(part: Sequences, *, per_class: int, seed: int = 0) -> Batch:
    """A few sequences of each class, as one batch of inputs and labels, in the order of the classes.

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
    return torch.from_numpy(part.inputs[picked]), torch.from_numpy(part.labels[picked])
