"""Every shape of model: what is recorded is what the model computes, and the training does not notice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenscope import open_run, record
from hiddenscope.callbacks.batches import find_call, tensors_of
from recording_examples import EXAMPLES, Example
from recurrent_examples import LENGTHS

DOCS = Path(__file__).resolve().parents[1] / "docs" / "recording.md"

# torch says so once, the first time a process runs such a network on the CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

by_shape = pytest.mark.parametrize("name", EXAMPLES)


def made(example: Example) -> tuple[nn.Module, Any]:
    torch.manual_seed(7)
    return example.build(), example.batch()


def train(model: nn.Module, batch: Any, *, epochs: int, recorder: Any = None) -> None:
    """A few steps of real training; loss and all random numbers depend on everything that ran before."""
    torch.manual_seed(3)
    call = find_call(model, batch, lambda call: None)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        model.train()
        output = call(model, copy.deepcopy(batch))
        loss = sum((tensor**2).mean() for tensor in tensors_of(output) if tensor.is_floating_point())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.snapshot(epoch, loss=loss.item())


@by_shape
def test_recorded_states_are_what_the_model_computes_by_hand_and_the_weights_stay_bitwise_equal(
    name: str, tmp_path: Path
) -> None:
    example = EXAMPLES[name]
    model, batch = made(example)
    undisturbed, same_batch = made(example)
    torch.manual_seed(11)
    with record(model, batch, tmp_path, strict=True, **example.options) as recorder:
        recorder.snapshot(-1)
        train(model, batch, epochs=2, recorder=recorder)
    after_recorded = torch.rand(3)
    train(undisturbed, same_batch, epochs=2)
    assert torch.equal(torch.rand(3), after_recorded), "the random state differs"
    for key, value in undisturbed.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key

    run = open_run(tmp_path)
    fresh, fresh_batch = made(example)
    for epoch, now in ((-1, fresh), (1, model)):
        now.eval()
        with torch.no_grad():
            expected = example.by_hand(now, copy.deepcopy(fresh_batch))
        assert set(run.layers) == set(expected)
        for layer, states in expected.items():
            found = run.trace(layer, epochs=[epoch]).values[0]  # (step, unit, sample)
            np.testing.assert_allclose(found, states.permute(1, 2, 0).numpy(), atol=1e-6, rtol=0, err_msg=layer)


def test_the_steps_of_ended_sequences_are_the_nan_ones() -> None:
    example = EXAMPLES["packed"]
    with torch.no_grad():
        expected = example.by_hand(*made(example))["layer"]
    assert (~torch.isnan(expected[:, :, 0])).sum(dim=1).tolist() == list(LENGTHS)


def test_the_table_in_the_docs_has_every_shape() -> None:
    text = DOCS.read_text()
    missing = [name for name, example in EXAMPLES.items() if f"| {example.what} | {example.how} |" not in text]
    assert not missing
    assert len(EXAMPLES) >= 20
