"""Models that torch knows no recurrence in: state-space blocks, transformers, convolutions, outputs of any kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recurrent_examples import FEATURES, UNITS


class StateSpace(nn.Module):
    """A diagonal linear recurrence with a gate: h = a * h + B x, y = C h * silu(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(UNITS))
        self.into, self.out, self.skip = (
            nn.Linear(FEATURES, UNITS),
            nn.Linear(UNITS, FEATURES),
            nn.Linear(FEATURES, FEATURES),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        a, u = torch.sigmoid(self.decay), self.into(x)
        h, seen = torch.zeros_like(u[:, 0]), []
        for t in range(x.shape[1]):
            h = a * h + u[:, t]
            seen.append(h)
        states = torch.stack(seen, dim=1)
        return x + self.out(states) * nn.functional.silu(self.skip(x)), {"states": states}


class StateSpaceStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([StateSpace(), StateSpace()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, _ = block(x)
        return x


def blocks_by_hand(model: StateSpaceStack, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for number, block in enumerate(model.blocks):
        x, _ = block(x)
        found[f"blocks.{number}"] = x
    return found


def inner_states_by_hand(model: StateSpaceStack, x: Tensor) -> dict[str, Tensor]:
    first = model.blocks[0](x)
    return {"blocks.0": first[1]["states"], "blocks.1": model.blocks[1](first[0])[1]["states"]}


@dataclass
class ModelOutput:
    """What libraries of language models return."""

    logits: Tensor
    last_hidden_state: Tensor


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> ModelOutput:
        states = self.gru(x)[0]
        return ModelOutput(logits=self.head(states), last_hidden_state=torch.relu(states))


class Named(nn.Module):
    """Takes its input by name and gives a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": inputs.sum(), "logits": self.backbone(inputs).logits}


class Transformer(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, dim_feedforward=8, batch_first=batch_first)
        self.batch_first = batch_first
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return out


def transformer_by_hand(model: Transformer, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for number, layer in enumerate(model.encoder.layers):
        x = layer(x if model.batch_first else x.transpose(0, 1))
        x = x if model.batch_first else x.transpose(0, 1)
        found[f"encoder.layers.{number}"] = x
    return found


class Convolution(nn.Module):
    """Channels before steps, as convolutions have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(FEATURES, UNITS, 3), nn.BatchNorm1d(UNITS), nn.ReLU())
        self.lstm = nn.LSTM(UNITS, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]
        return out
