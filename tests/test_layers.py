"""Which layers are found and chosen, and how much of them is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from block_examples import StateSpaceStack, Transformer
from hiddenscope.callbacks.budget import Budget, choose, evenly_spaced
from hiddenscope.callbacks.layers import find_sources
from hiddenscope.callbacks.probe import as_probe
from hiddenscope.callbacks.readers import first_states
from hiddenscope.callbacks.recorder import StateRecorder
from hiddenscope.errors import RecordingError
from loop_examples import CellLoop, Translator
from recurrent_examples import SeveralLayers

X = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(0))


def names(model: nn.Module, layers: Any = None) -> list[str]:
    return [source.name for source in find_sources(model, layers, record=("h",))]


def recorder(model: nn.Module, batch: Any = X, **options: Any) -> StateRecorder:
    return StateRecorder(model, as_probe(batch, max_samples=100, seed=0), **options)


def test_every_recurrent_layer_is_found_in_the_order_of_the_model() -> None:
    assert names(SeveralLayers()) == ["stack.0", "stack.1"]
    assert names(Translator(teacher=True)) == ["encoder", "decoder"]
    assert names(nn.LSTM(2, 3)) == ["lstm"], "a model that is a layer itself is called by its class"


def test_patterns_stay_between_dots_unless_they_are_double() -> None:
    model = StateSpaceStack()
    assert names(model, "blocks.*") == ["blocks.0", "blocks.1"]
    assert names(model, "blocks.?.into") == ["blocks.0.into", "blocks.1.into"]
    assert len(names(model, "**.into")) == 2
    assert len(names(model, "blocks.**")) == 8
    assert names(model, ["blocks.1", "blocks.*"]) == ["blocks.1", "blocks.0"]


def test_a_pattern_finds_a_layer_that_is_called_as_the_class_of_its_model() -> None:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5)
            self.head = nn.Linear(5, 2)

    assert names(Lstm(), "*") == ["lstm", "head"], "the model itself matches no pattern, its layers do"
    assert names(Lstm(), "lstm*") == ["lstm"]


def test_a_function_chooses_by_name_and_module() -> None:
    model = StateSpaceStack()
    assert names(model, lambda name, module: isinstance(module, nn.Linear) and "skip" in name) == [
        "blocks.0.skip",
        "blocks.1.skip",
    ]
    with pytest.raises(RecordingError, match="chose none of the"):
        names(model, lambda name, module: False)


def test_one_level_of_a_stacked_network_can_be_chosen() -> None:
    model = nn.Sequential(nn.LSTM(4, 5, num_layers=3, batch_first=True))
    assert [layer.name for layer in recorder(model, layers="0.l1").layers] == ["0.l1"]
    assert [layer.name for layer in recorder(model, layers=["0.l2", "0.l0"]).layers] == ["0.l0", "0.l2"]
    assert [layer.name for layer in recorder(model, layers=["0.l2", "0"]).layers] == ["0.l0", "0.l1", "0.l2"]
    with pytest.raises(RecordingError, match=r'got layer "0.l3"'):
        recorder(model, layers="0.l3")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("stack.2", r'got layer "stack.2"; this model has recurrent layers "stack.0", "stack.1"; did you mean "stack'),
        ("lstm*", r'got layers pattern "lstm\*", which matches nothing'),
        ([], "is an empty list"),
    ],
)
def test_a_layer_that_is_not_there_is_answered_with_those_that_are(layers: Any, said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        names(SeveralLayers(), layers)


def test_a_layer_whose_output_cannot_be_read_is_refused_by_name_and_passed_over_by_pattern() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Conv2d(1, 2, 3)
            self.line = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.image(x.unsqueeze(1))
            out: Tensor = self.line(x)
            return out

    with pytest.raises(RecordingError, match=r'layer "image" \(Conv2d\) returned a float32 tensor \(6, 2, 7, 2\)'):
        recorder(Grid(), layers="image")
    assert [layer.name for layer in recorder(Grid(), layers="*").layers] == ["line"]


def test_a_layer_that_takes_no_part_is_refused_by_name_and_left_out_otherwise() -> None:
    class Idle(SeveralLayers):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.GRU(3, 3)

    found = recorder(Idle())
    assert [layer.name for layer in found.layers] == ["stack.0", "stack.1"]
    assert list(found.left_out) == ["idle"]
    assert "takes no part" in found.left_out["idle"]
    with pytest.raises(RecordingError, match='nothing could be recorded from "idle"'):
        recorder(Idle(), layers="idle")
    with pytest.raises(RecordingError, match="without the states that record= asks for"):
        recorder(CellLoop(nn.GRUCell), record=("c",))


def test_a_layer_that_sees_other_sequences_is_left_out_or_refused() -> None:
    class Words(nn.Module):
        """An LSTM over the features of each step, below one over steps."""

        def __init__(self) -> None:
            super().__init__()
            self.letters = nn.LSTM(1, 3, batch_first=True)
            self.words = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            within = self.letters(x.reshape(-1, x.shape[2], 1))[0][:, -1]
            out: Tensor = self.words(within.reshape(*x.shape[:2], 3))[0]
            return out

    labeled = (X, torch.arange(6))
    found = recorder(Words(), labeled)
    assert [layer.name for layer in found.layers] == ["words"]
    assert found.left_out == {"letters": "it sees 54 sequences where others see 6"}
    with pytest.raises(RecordingError, match='"letters" sees 54 sequences where others see 6'):
        recorder(Words(), labeled, layers=["letters", "words"])


def test_units_of_two_directions_have_names() -> None:
    (layer,) = recorder(nn.GRU(4, 3, bidirectional=True, batch_first=True)).layers
    assert layer.units.tolist() == [f"{way} {unit}" for way in ("forward", "backward") for unit in range(3)]


def test_a_transformer_with_padding_inside_is_read_from_its_nested_tensors() -> None:
    model = Transformer(batch_first=True)
    model.encoder.enable_nested_tensor = True
    model.encoder.use_nested_tensor = True
    lengths = torch.tensor([9, 4, 7, 9, 1, 2])
    padding = torch.arange(9) >= lengths[:, None]

    def forward(network: Any, batch: Any) -> Any:
        return network.encoder(batch, src_key_padding_mask=padding)

    with pytest.warns(UserWarning, match="nested tensors"):
        states = recorder(model, layers="encoder.layers.0", forward=forward).read().values["encoder.layers.0"]
    assert states.shape == (9, 4, 6)
    assert (~torch.isnan(states[:, 0])).sum(dim=0).tolist() == lengths.tolist()
    alone = model.eval().encoder.layers[0](X[1:2, :4])[0].T
    torch.testing.assert_close(states[:4, :, 1], alone.T.detach(), atol=1e-5, rtol=0)


def test_states_are_found_in_outputs_of_many_kinds() -> None:
    wanted, other = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    assert first_states((other, wanted)) is wanted
    assert first_states([torch.zeros(2, 3, 4, dtype=torch.int64), wanted]) is wanted
    assert first_states({"logits": torch.zeros(2, 3, 9), "last_hidden_state": wanted}) is wanted
    assert first_states((other, None)) is other
    assert first_states(("text", 3)) is None
    assert first_states(torch.zeros(2, 3, 4, 5)) is None


def test_large_layers_are_thinned_the_same_way_every_time() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(4, 50, batch_first=True)
    budget = Budget(max_units=7, max_steps=4, max_weights_mb=0)
    thinned, again = recorder(model, budget=budget), recorder(model, budget=budget)
    whole = recorder(model).read().values["lstm"]
    (layer,) = thinned.layers
    assert (layer.steps.tolist(), layer.units.size) == ([0, 3, 5, 8], 7)
    assert layer.units.tolist() == again.layers[0].units.tolist()
    assert thinned.bytes_per_epoch() == 2 * thinned.bytes_per_epoch("float16") == 4 * 7 * 6 * 4
    torch.testing.assert_close(thinned.read().values["lstm"], whole[layer.steps][:, layer.units], rtol=0, atol=0)
    assert recorder(model, budget=budget, seed=1).layers[0].units.tolist() != layer.units.tolist()


def test_a_layer_its_cell_states_and_its_gates_are_thinned_to_the_same_units() -> None:
    model = nn.LSTM(4, 50, num_layers=2, batch_first=True, bidirectional=True)
    layers = recorder(model, record=("h", "c", "gates"), budget=Budget(max_units=7)).layers
    chosen = {layer.name: layer.units.tolist() for layer in layers}
    for level in ("lstm.l0", "lstm.l1"):
        assert {tuple(units) for name, units in chosen.items() if name.startswith(level)} == {tuple(chosen[level])}
    assert chosen["lstm.l0"] != chosen["lstm.l1"]


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 50)),
        min_size=1,
    ),
    st.floats(0.01, 5.0),
    st.integers(0, 5),
)
def test_the_budget_in_megabytes_is_kept_as_far_as_eight_steps_and_units_allow(
    sizes: dict[str, tuple[int, int, int]], megabytes: float, seed: int
) -> None:
    kept = choose(sizes, Budget(max_mb=megabytes), seed=seed)
    total, least = 0, 0
    for name, (steps, units) in kept.items():
        all_steps, all_units, samples = sizes[name]
        assert len(set(steps.tolist())) == len(steps) <= min(all_steps, 512)
        assert len(set(units.tolist())) == len(units) <= min(all_units, 512)
        assert steps.max() < all_steps
        assert units.max() < all_units
        assert np.all(np.diff(units) > 0)
        total += len(steps) * len(units) * samples * 4
        least += max(len(steps), 8) * max(len(units), 8) * samples * 4
    if all(len(steps) > 8 and len(units) > 8 for steps, units in kept.values()):
        assert total <= megabytes * 1e6 * (1 + 1e-9)


@given(st.integers(1, 400), st.integers(1, 400))
def test_evenly_spaced_steps_differ_in_distance_by_one_at_most_and_keep_both_ends(count: int, keep: int) -> None:
    steps = evenly_spaced(count, keep)
    assert len(steps) == min(count, keep)
    if len(steps) > 1:
        assert (steps[0], steps[-1]) == (0, count - 1)
        assert np.ptp(np.diff(steps)) <= 1


@pytest.mark.parametrize("option", ["max_units", "max_steps", "max_mb"])
def test_a_budget_of_nothing_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be positive, got 0"):
        Budget(**{option: 0})
