"""Models of many shapes: a table of each with a probe and the states that its forward computes when called by hand.

The expectations share no code with the recorder: stacked networks are cut off after the layer in question, packed ones
are run sequence by sequence, gates come from stepping a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from block_examples import (
    Convolution,
    Named,
    StateSpaceStack,
    Transformer,
    blocks_by_hand,
    inner_states_by_hand,
    transformer_by_hand,
)
from gate_examples import (
    gates_by_hand,
    gru_gates_by_hand,
    lstm_cell_gates_by_hand,
    packed_gates_by_hand,
    projected_cells_by_hand,
)
from loop_examples import (
    CellLoop,
    OwnCellLoop,
    StepwiseDecoder,
    StopsEarly,
    Translator,
    loop_by_hand,
    sorted_batch,
    stepwise_by_hand,
    stops_early_by_hand,
    translator_batch,
    translator_by_hand,
)
from recurrent_examples import (
    FEATURES,
    SAMPLES,
    STEPS,
    Around,
    Overwriting,
    OwnStart,
    Packed,
    SeveralLayers,
    TakesPacked,
    own_start_by_hand,
    packed_by_hand,
    packed_sequence_batch,
    padded_batch,
    several_by_hand,
    takes_packed_by_hand,
    whole,
)


@dataclass(frozen=True)
class Example:
    """A model to record. ``by_hand`` gives the expected states by layer, (sample, step, unit), padding NaN."""

    what: str
    build: Callable[[], nn.Module]
    by_hand: Callable[[Any, Any], Mapping[str, Tensor]]
    batch: Callable[[], Any] = lambda: torch.randn(SAMPLES, STEPS, FEATURES)
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = "found by itself"


EVERYTHING = {"record": ("h", "c", "gates")}
FIRST = {"batch_first": True}

EXAMPLES: dict[str, Example] = {
    "rnn": Example("`nn.RNN`, tanh", lambda: Around(nn.RNN, **FIRST), whole),
    "rnn_relu": Example(
        "`nn.RNN`, relu, without biases", lambda: Around(nn.RNN, nonlinearity="relu", bias=False, **FIRST), whole
    ),
    "lstm": Example("`nn.LSTM`", lambda: Around(nn.LSTM, **FIRST), whole),
    "gru": Example("`nn.GRU`", lambda: Around(nn.GRU, **FIRST), whole),
    "step_first": Example(
        "`nn.LSTM`, steps first", lambda: Around(nn.LSTM), whole, lambda: torch.randn(STEPS, SAMPLES, FEATURES)
    ),
    "stacked": Example(
        "`nn.LSTM`, three levels with dropout", lambda: Around(nn.LSTM, num_layers=3, dropout=0.5, **FIRST), whole
    ),
    "bidirectional": Example("`nn.LSTM`, bidirectional", lambda: Around(nn.LSTM, bidirectional=True, **FIRST), whole),
    "stacked_bidirectional": Example(
        "`nn.GRU`, two levels, bidirectional", lambda: Around(nn.GRU, num_layers=2, bidirectional=True, **FIRST), whole
    ),
    "projection": Example(
        "`nn.LSTM`, `proj_size`, two levels, bidirectional",
        lambda: Around(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3, **FIRST),
        whole,
    ),
    "unbatched": Example(
        "`nn.GRU`, two levels, one sequence without a batch axis",
        lambda: Around(nn.GRU, num_layers=2, **FIRST),
        lambda model, x: whole(model, x.unsqueeze(0)),
        lambda: torch.randn(STEPS, FEATURES),
    ),
    "packed": Example("`nn.LSTM`, packed inside", lambda: Packed(nn.LSTM), packed_by_hand, padded_batch),
    "packed_stacked": Example(
        "`nn.GRU`, packed, two levels, bidirectional",
        lambda: Packed(nn.GRU, num_layers=2, bidirectional=True),
        packed_by_hand,
        padded_batch,
    ),
    "packed_batch": Example(
        "`nn.LSTM`, two levels, given a `PackedSequence`", TakesPacked, takes_packed_by_hand, packed_sequence_batch
    ),
    "own_start": Example("`nn.LSTM`, two levels, learned initial states", OwnStart, own_start_by_hand),
    "several": Example("several layers of different kinds", SeveralLayers, several_by_hand),
    "rnn_cell": Example("`nn.RNNCell` in a loop", lambda: CellLoop(nn.RNNCell), loop_by_hand),
    "lstm_cell": Example("`nn.LSTMCell` in a loop", lambda: CellLoop(nn.LSTMCell), loop_by_hand),
    "gru_cells": Example("two `nn.GRUCell`s in one loop", lambda: CellLoop(nn.GRUCell, stacked=True), loop_by_hand),
    "stops_early": Example(
        "`nn.GRUCell`, loop that drops ended sequences", StopsEarly, stops_early_by_hand, sorted_batch
    ),
    "teacher": Example(
        "encoder and decoder, teacher forcing", lambda: Translator(teacher=True), translator_by_hand, translator_batch
    ),
    "free_running": Example(
        "encoder and decoder, fed its own answers",
        lambda: Translator(teacher=False),
        translator_by_hand,
        translator_batch,
    ),
    "stepwise": Example("`nn.GRU` called once per step", StepwiseDecoder, stepwise_by_hand),
    "overwriting": Example(
        "model that writes into its input and its layer's output",
        Overwriting,
        lambda model, x: {"layer": model.layer(x)[0]},
    ),
    "own_cell": Example(
        "a cell of one's own in a loop",
        OwnCellLoop,
        lambda model, x: {"unit": model.all_steps(x)},
        options={"layers": "unit"},
        how='`layers="unit"`',
    ),
    "model_output": Example(
        "a module that returns a `ModelOutput`, called by name",
        Named,
        lambda model, batch: {"backbone": model.backbone(batch["inputs"]).last_hidden_state},
        lambda: {"inputs": torch.randn(SAMPLES, STEPS, FEATURES), "labels": torch.arange(SAMPLES)},
        options={"layers": "backbone"},
        how='`layers="backbone"`',
    ),
    "state_space": Example(
        "state-space blocks that return tuples",
        StateSpaceStack,
        blocks_by_hand,
        options={"layers": "blocks.*"},
        how='`layers="blocks.*"`',
    ),
    "inner_states": Example(
        "the inner states of state-space blocks",
        StateSpaceStack,
        inner_states_by_hand,
        options={"extract": {f"blocks.{i}": lambda output: output[1]["states"] for i in range(2)}},
        how="`extract={name: function of the output}`",
    ),
    "transformer": Example(
        "transformer encoder, batch first",
        lambda: Transformer(batch_first=True),
        transformer_by_hand,
        options={"layers": "encoder.layers.*"},
        how='`layers="encoder.layers.*"`',
    ),
    "transformer_step_first": Example(
        "transformer encoder, steps first",
        lambda: Transformer(batch_first=False),
        transformer_by_hand,
        options={"layers": "encoder.layers.*"},
        how='`layers="encoder.layers.*"`',
    ),
    "convolution": Example(
        "anything else: features of a convolution",
        Convolution,
        lambda model, x: {"features": model.conv(x.transpose(1, 2)).transpose(1, 2)},
        options={"extract": lambda model, x: {"features": model.conv(x.transpose(1, 2)).transpose(1, 2)}},
        how="`extract=` a function of model and batch",
    ),
    "lstm_gates": Example(
        "cell states and gates of `nn.LSTM`, two levels, bidirectional",
        lambda: Around(nn.LSTM, num_layers=2, bidirectional=True, **FIRST),
        gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "packed_gates": Example(
        "cell states and gates of `nn.LSTM`, packed, bidirectional",
        lambda: Packed(nn.LSTM, num_layers=2, bidirectional=True),
        packed_gates_by_hand,
        padded_batch,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "projected_cells": Example(
        "cell states of `nn.LSTM` with `proj_size`, two levels",
        lambda: Around(nn.LSTM, num_layers=2, proj_size=3, **FIRST),
        projected_cells_by_hand,
        options={"record": ("h", "c")},
        how='`record=("h", "c")`',
    ),
    "gru_gates": Example(
        "gates of `nn.GRU`",
        lambda: Around(nn.GRU, **FIRST),
        gru_gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "cell_gates": Example(
        "cell states and gates of `nn.LSTMCell` in a loop",
        lambda: CellLoop(nn.LSTMCell),
        lstm_cell_gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
}
"""One row of the table in docs/recording.md each."""
