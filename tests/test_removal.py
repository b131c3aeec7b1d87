"""Removing units: torch's kernel with zeroed weights does what silencing does, and known networks give known curves."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import hadamard
from torch import nn

from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.removal import agreement, model_score, rank_units, removal_curves, unit_importance
from hiddenscope.analyses.stepping import Silence


class Network(nn.Module):
    """A recurrent layer, its last states and a readout of all steps."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **options)
        width = (options.get("proj_size") or 4) * (2 if options.get("bidirectional") else 1)
        self.readout = nn.Linear(width, 2)

    def forward(self, inputs):
        output, final = self.rnn(inputs)
        ends = final if isinstance(final, tuple) else (final,)
        return self.readout(output).mean(dim=1).sum(dim=1) + ends[0].sum(dim=(0, 2))


@pytest.mark.parametrize("mode", ["recurrence", "readout"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.RNN, {}),
        (nn.GRU, {"num_layers": 3}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"num_layers": 2, "proj_size": 2}),
        (nn.RNN, {"num_layers": 2, "nonlinearity": "relu", "bias": False}),
    ],
)
def test_removing_agrees_with_silencing_step_by_step(kind, options, mode):
    torch.manual_seed(0)
    model = Network(kind, **options).double()
    access = ModelAccess(model)
    inputs = torch.randn(5, 7, 3, dtype=torch.float64)
    seen = []

    def measure(answer):
        seen.append(answer.numpy())
        return float(answer.sum())

    for layer in access.layers:
        width = access.width(layer)
        keep = np.random.default_rng(1).random((3, width)) < 0.5
        keep[0] = True
        seen.clear()
        scores = model_score(access, layer, inputs, measure, mode=mode)(keep)
        for row, answer, one in zip(keep, seen, scores, strict=True):
            wanted = access.answer(inputs, [Silence(layer, np.flatnonzero(~row).tolist(), mode)]).numpy()
            assert_allclose(answer, wanted, atol=1e-12)
            assert_allclose(one, wanted.sum(), atol=1e-12)
        assert_allclose(seen[0], access.answer(inputs).numpy(), atol=1e-12)


def test_a_model_in_training_is_left_exactly_as_it_was():
    torch.manual_seed(0)
    model = Network(nn.LSTM, num_layers=2, dropout=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flat = [id(weight) for weight in model.rnn._flat_weights]
    state = torch.get_rng_state()
    calls = []
    model.rnn.register_forward_hook(lambda *seen: calls.append(1))
    score = model_score(ModelAccess(model), "rnn.l0", torch.randn(2, 5, 3), lambda answer: -float(answer.mean()))
    state = torch.get_rng_state()
    score(np.array([[True, False, True, True]] * 3))
    assert len(calls) == 3
    assert model.rnn.training
    assert "forward" not in model.rnn.__dict__
    assert [id(weight) for weight in model.rnn._flat_weights] == flat
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(RuntimeError):
        model_score(ModelAccess(model), "rnn.l1", torch.randn(2, 5, 9), lambda answer: 0.0)(np.ones((1, 4), bool))
    assert "forward" not in model.rnn.__dict__


class Readout(nn.Module):
    """Units that each see one input and no past, read out linearly."""

    def __init__(self, weights):
        super().__init__()
        size = len(weights)
        self.rnn = nn.RNN(size, size, bias=False)
        self.register_buffer("weights", torch.tensor(weights))
        with torch.no_grad():
            self.rnn.weight_hh_l0.zero_()
            self.rnn.weight_ih_l0.copy_(torch.diag(torch.linspace(0.2, 1.5, size)))

    def forward(self, inputs):
        return self.rnn(inputs)[0] @ self.weights


def test_the_cost_of_uncorrelated_units_is_their_weight_and_power():
    """With y = sum w_j h_j and h uncorrelated, removing j costs exactly w_j^2 E[h_j^2], and costs add up."""
    readout = np.array([1.0, -3.0, 0.0, 2.0, 0.5, -0.1, 4.0])
    model = Readout(readout.tolist()).double()
    inputs = torch.from_numpy(hadamard(8)[:, None, 1:].astype(np.float64).copy())  # columns orthogonal, of mean 0
    whole = model(inputs).detach()
    score = model_score(ModelAccess(model), "rnn", inputs, lambda y: -float(((y - whole) ** 2).mean()), mode="readout")
    power = np.tanh(np.linspace(0.2, 1.5, 7)) ** 2
    exact = readout**2 * power
    found = unit_importance(score, 7)
    assert_allclose(found, exact, atol=1e-12)
    assert found[2] == 0.0  # a dead unit changes nothing
    strength = np.abs(readout) * np.sqrt(power)
    ranks = rank_units({"strength": strength})
    assert_array_equal(np.argsort(ranks["rank"].values[0]), np.argsort(-strength))
    assert_allclose(agreement({"strength": strength}, found)["correlation"], 1.0)
    curves = removal_curves(score, ranks["rank"], random_orders=4, seed=1)
    high = curves["score"].sel(metric="strength", order="high first").values
    low = curves["score"].sel(metric="strength", order="low first").values
    assert_array_equal(curves.removed, np.arange(8))
    assert_allclose(high, -np.concatenate([[0], np.cumsum(np.sort(exact)[::-1])]), atol=1e-12)
    assert_allclose(low, -np.concatenate([[0], np.cumsum(np.sort(exact))]), atol=1e-12)
    assert_allclose(curves["area"], np.trapezoid(low - high, np.arange(8) / 7), atol=1e-12)
    assert curves["area"].item() > curves["area_error"].item() > 0
    for row in curves["random"].values:
        assert (high - 1e-12 <= row).all()
        assert (row <= low + 1e-12).all()


def test_random_orders_depend_on_the_seed_alone_and_end_where_all_end():
    weights = np.random.default_rng(0).random(50)
    ranks = rank_units({"a": weights, "b": -np.arange(50)})["rank"]
    one, same, other = (
        removal_curves(lambda keep: keep @ weights, ranks, random_orders=5, points=6, seed=seed) for seed in (3, 3, 4)
    )
    assert one.identical(same)
    assert not one.identical(other)
    assert one.removed.values.tolist() == [0, 10, 20, 30, 40, 50]
    assert_allclose(one["random"].isel(removed=0), weights.sum())
    assert (one["random"].isel(removed=-1) == 0).all()
    assert one["area"].sel(metric="a") > 3 * one["area_error"]


def test_a_useless_ranking_has_an_area_of_about_nothing():
    rng = np.random.default_rng(2)
    weights = rng.random(40)
    ranks = rank_units({str(i): rng.random(40) for i in range(50)})["rank"]
    curves = removal_curves(lambda keep: keep @ weights, ranks, random_orders=40)
    assert_allclose(curves["area"].std(), curves["area_error"], rtol=0.35)
    assert abs(curves["area"].mean()) < 3 * curves["area_error"] / np.sqrt(50)


def test_a_score_is_asked_once_for_each_set_of_units():
    asked = []

    def score(keep):
        asked.extend(map(tuple, keep))
        return keep.sum(axis=1).astype(float)

    removal_curves(score, rank_units({"a": [3, 2, 1], "b": [3, 1, 2]})["rank"], random_orders=6)
    assert len(asked) == len(set(asked)) <= 8


def test_ranks_share_ties_and_put_what_is_missing_last():
    ranks = rank_units({"a": [1.0, np.nan, -2.0, 1.0, np.nan], "b": [0.0] * 5})
    assert ranks["rank"].values.tolist() == [[2.5, 4.5, 1.0, 2.5, 4.5], [3.0] * 5]
    assert ranks["combined"].values.tolist() == [2.75, 3.75, 2.0, 2.75, 3.75]


def test_agreement_is_not_claimed_where_there_is_nothing_to_compare():
    found = agreement({"few": [1, 2, np.nan, np.nan], "flat": [1, 1, 1, 1], "down": [4, 3, 2, 1]}, [1, 2, 3, 4])
    assert np.isnan(found["correlation"].values[:2]).all()
    assert found["units"].values.tolist() == [2, 4, 4]
    assert_allclose(found["correlation"].values[2], -1)


def test_what_cannot_be_removed_is_said():
    access = ModelAccess(nn.GRU(2, 3), call=lambda model, x: model(x)[0])
    with pytest.raises(ValueError, match="recurrent layers"):
        model_score(access, "lstm", torch.zeros(1, 1, 2), lambda y: 0.0)
    with pytest.raises(ValueError, match="mode must be"):
        model_score(access, "gru", torch.zeros(1, 1, 2), lambda y: 0.0, mode="both")
    with pytest.raises(ValueError, match="one entry per unit"):
        model_score(access, "gru", torch.zeros(1, 1, 2), lambda y: 0.0)(np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="at least one array"):
        rank_units({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="2 points"):
        removal_curves(lambda keep: keep.sum(axis=1), rank_units({"a": [1.0, 2.0]})["rank"], points=1)
