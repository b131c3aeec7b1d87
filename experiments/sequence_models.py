"""A GRU encoder and decoder that predict how a sequence goes on, and their training, recorded.

As in Su & Shlizerman (2019, arXiv:1905.12176): the encoder reads the first part of a window, the decoder starts from
its last state and predicts the second part from its own predictions; its output is added to the frame before.
Their public code has 1,024 units and 10,000 batches of 16; here both are smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hiddenscope.callbacks.recording import record

Windows = npt.NDArray[np.float32]


class EncoderDecoder(nn.Module):
    """Predicts the steps that follow a sequence.

    Args:
        features: per step.
        units: of encoder and decoder.
        steps: that the decoder predicts.
    """

    def __init__(self, features: int, units: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.encoder = nn.GRU(features, units, batch_first=True)
        self.decoder = nn.GRUCell(features, units)
        self.readout = nn.Linear(units, features)

    def forward(self, sequences: Tensor) -> Tensor:
        """Predictions (sequence, step, feature) that follow ``sequences`` (sequence, step, feature)."""
        return self.follow(sequences)[0]

    def follow(self, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions, and the decoder's states (sequence, step, unit)."""
        state = self.encoder(sequences)[1][0]
        frame = sequences[:, -1]
        frames, states = [], []
        for _ in range(self.steps):
            state = self.decoder(frame, state)
            frame = frame + self.readout(state)
            frames.append(frame)
            states.append(state)
        return torch.stack(frames, dim=1), torch.stack(states, dim=1)


def train(
    folder: Path,
    windows: Windows,
    held_out: Windows,
    probe: tuple[Windows, npt.NDArray[np.int64]],
    *,
    label_names: tuple[str, ...],
    encoder_steps: int,
    units: int,
    epochs: int,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    watch: Callable[[range], object] = iter,
) -> EncoderDecoder:
    """Train on windows (window, step, feature) and record encoder and decoder on the probe after every epoch.

    Adam, mean squared error, gradients cut at norm 1 (all as in the authors' code; the rate lies between the two that
    they give). ``train_loss`` and ``val_loss`` are logged, the second of the held-out windows.

    Returns:
        The trained model; its parameters are also in ``model.pt`` in the folder.
    """
    torch.manual_seed(seed)
    data, judged = torch.from_numpy(windows), torch.from_numpy(held_out)
    model = EncoderDecoder(windows.shape[2], units, windows.shape[1] - encoder_steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    looked_at = torch.from_numpy(probe[0][:, :encoder_steps]), torch.from_numpy(probe[1])
    with record(
        model, looked_at, folder, layers=["encoder", "decoder"], label_names=label_names, max_samples=256, seed=seed
    ) as recording:
        recording.snapshot(-1, val_loss=_loss(model, judged, encoder_steps))
        for epoch in watch(range(epochs)):  # type: ignore[attr-defined]
            total = 0.0
            for chosen in torch.split(torch.randperm(len(data)), batch_size):
                batch = data[chosen]
                loss = nn.functional.mse_loss(model(batch[:, :encoder_steps]), batch[:, encoder_steps:])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                total += float(loss.detach()) * len(batch)
            recording.snapshot(epoch, train_loss=total / len(data), val_loss=_loss(model, judged, encoder_steps))
    torch.save(model.state_dict(), folder / "model.pt")
    return model


def predictor(
    model: EncoderDecoder,
) -> Callable[[npt.NDArray[np.float64]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """The model as `hiddenscope.analyses.segmentation.segment` calls it."""

    def predict(frames: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        with torch.no_grad():
            prediction, states = model.follow(torch.from_numpy(frames.astype(np.float32))[None])
        return prediction[0].numpy(), states[0].numpy()

    return predict


def _loss(model: EncoderDecoder, windows: Tensor, encoder_steps: int) -> float:
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(windows[:, :encoder_steps]), windows[:, encoder_steps:]))
