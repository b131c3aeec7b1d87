"""Relevance agrees with a loop over single weights, sums to the activation, obeys causality and superposition."""

import numpy as np
import pytest
import torch
from torch import nn

from hiddenscope.analyses.relevance import relevance

UNITS, FEATURES, STEPS, SAMPLES = 6, 4, 15, 3


def network(kind, seed=0, **options):
    torch.manual_seed(seed)
    return getattr(nn, kind)(FEATURES, UNITS, batch_first=True, dtype=torch.float64, **options)


def sequences(seed=0, samples=SAMPLES, steps=STEPS):
    return np.random.default_rng(seed).normal(size=(samples, steps, FEATURES))


def sign(z):
    return -1.0 if z < 0 else 1.0


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def hand_back(contributions, bias, z, relevance_above, epsilon, delta):
    """The linear rule for one upper quantity: relevance of each of its summands."""
    n = len(contributions)
    spread = delta * (bias + epsilon * sign(z)) / n
    return [(part + spread) / (z + epsilon * sign(z)) * relevance_above for part in contributions]


def slow_twin(module, x, unit, step, epsilon, delta):
    """One sequence, one level, one direction; one weight at a time, straight from the equations."""
    kind = module.mode.partition("_")[0]
    w, u, b, d = (parameter.detach().numpy() for parameter in module.parameters())
    n = module.hidden_size
    h, c = np.zeros(n), np.zeros(n)
    memory = []
    for t in range(step + 1):
        a, r = w @ x[t] + b, u @ h + d
        seen = {"h": h, "c": c}
        if kind == "RNN":
            seen["z"] = a + r
            h = np.tanh(a + r)
        elif kind == "LSTM":
            i, f, g, o = (a + r).reshape(4, n)
            seen |= {"z": g, "keep": sigmoid(f) * c, "new": sigmoid(i) * np.tanh(g)}
            c = seen["keep"] + seen["new"]
            h = sigmoid(o) * np.tanh(c)
        else:
            reset, update = sigmoid(a[:n] + r[:n]), sigmoid(a[n : 2 * n] + r[n : 2 * n])
            candidate = a[2 * n :] + reset * r[2 * n :]
            seen |= {"z": candidate, "reset": reset, "keep": update * h, "new": (1 - update) * np.tanh(candidate)}
            h = seen["keep"] + seen["new"]
        memory.append(seen)
    on_h, on_c = np.zeros(n), np.zeros(n)
    on_h[unit] = h[unit]
    on_x = np.zeros_like(x)
    for t in reversed(range(step + 1)):
        seen = memory[t]
        next_h, next_c = np.zeros(n), np.zeros(n)
        for j in range(n):
            arriving = on_h[j] + on_c[j]
            if kind != "RNN":
                keep, new = seen["keep"][j], seen["new"][j]
                old, arriving = hand_back([keep, new], 0.0, keep + new, arriving, epsilon, delta)
                if kind == "LSTM":
                    next_c[j] += old
                else:
                    next_h[j] += old
            row = {"RNN": j, "LSTM": 2 * n + j, "GRU": 2 * n + j}[kind]
            gain = seen["reset"][j] if kind == "GRU" else 1.0
            contributions = [w[row, i] * x[t, i] for i in range(len(x[t]))]
            contributions += [gain * u[row, i] * seen["h"][i] for i in range(n)]
            shares = hand_back(contributions, b[row] + gain * d[row], seen["z"][j], arriving, epsilon, delta)
            on_x[t] += shares[: len(x[t])]
            next_h += shares[len(x[t]) :]
        on_h, on_c = next_h, next_c
    return on_x, h[unit], on_h.sum() + on_c.sum()


@pytest.mark.parametrize("conserve", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_relevance_agrees_with_a_loop_over_single_weights(kind, conserve):
    module, x = network(kind), sequences()
    steps = np.array([14, 9, 0])
    found = relevance(module, x, unit=2, step=steps, epsilon=0.01, conserve=conserve)
    for sample in range(SAMPLES):
        on_x, output, carried = slow_twin(module, x[sample], 2, steps[sample], 0.01, float(conserve))
        np.testing.assert_allclose(found["relevance"].values[sample], on_x, rtol=1e-10, atol=1e-14)
        assert float(found["output"][sample]) == pytest.approx(output, rel=1e-12)
        assert float(found["carried"][sample]) == pytest.approx(carried, rel=1e-10, abs=1e-14)


SHAPES = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "bias": False},
]


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_conserved_relevance_sums_to_the_activation_that_torch_computes(kind, options):
    module, x = network(kind, seed=3, **options), sequences(4)
    expected = module(torch.from_numpy(x))[0].detach().numpy()
    for unit in (2, expected.shape[2] - 1):
        found = relevance(module, x, unit=unit, step=7, conserve=True)
        np.testing.assert_allclose(found["output"], expected[:, 7, unit], atol=1e-12)
        total = found["relevance"].sum(("step", "feature")) + found["carried"]
        np.testing.assert_allclose(total, found["output"], atol=1e-6)
        np.testing.assert_allclose(found["unexplained"], 0, atol=1e-6)


def test_without_conservation_the_biases_keep_their_part_and_it_is_reported():
    module, x = network("LSTM"), sequences()
    found = relevance(module, x, unit=2)
    total = found["relevance"].sum(("step", "feature")) + found["carried"]
    assert (abs(total - found["output"]) > 1e-3).any()
    np.testing.assert_allclose(found["unexplained"], found["output"] - total, atol=1e-12)


@pytest.mark.parametrize("conserve", [False, True])
def test_projected_memory_conserves_and_matches_torch(conserve):
    module, x = network("LSTM", proj_size=3), sequences()
    found = relevance(module, x, unit=1, conserve=conserve)
    np.testing.assert_allclose(found["output"], module(torch.from_numpy(x))[0][:, -1, 1].detach(), atol=1e-12)
    if conserve:
        np.testing.assert_allclose(found["unexplained"], 0, atol=1e-9)


def test_single_precision_conserves_to_single_precision():
    module, x = network("LSTM", num_layers=2).float(), sequences().astype(np.float32)
    found = relevance(module, x, unit=2, conserve=True, dtype=np.float32)
    assert found["relevance"].dtype == np.float32
    np.testing.assert_allclose(found["unexplained"], 0, atol=1e-4)


@pytest.mark.parametrize("conserve", [False, True])
def test_in_a_linear_network_relevance_is_the_contribution_of_each_input(conserve):
    """Without bias and epsilon: R(t, i) = (A^(T - t) B)[k, i] x(t, i), by superposition."""
    torch.manual_seed(0)
    module = nn.RNN(FEATURES, UNITS, nonlinearity="relu", bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()  # with inputs above 0 all stays in the linear part of relu
    x = np.abs(sequences())
    found = relevance(module, x, unit=4, step=11, epsilon=0.0, conserve=conserve)
    b, a = (parameter.detach().numpy() for parameter in module.parameters())
    for t in range(STEPS):
        gain = (np.linalg.matrix_power(a, 11 - t) @ b)[4] if t <= 11 else np.zeros(FEATURES)
        np.testing.assert_allclose(found["relevance"].values[:, t], gain * x[:, t], rtol=1e-10)
    np.testing.assert_allclose(found["relevance"].sum(("step", "feature")), found["output"], rtol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("conserve", [False, True])
def test_steps_after_the_target_have_no_relevance_at_all(kind, conserve):
    found = relevance(network(kind, num_layers=2), sequences(), unit=0, step=6, conserve=conserve, passes=4)
    assert not found["relevance"].values[:, 7:].any()
    assert not found["relevance_mean"].values[:, 7:].any()
    assert found["relevance"].values[:, :7].all()


def test_the_backward_direction_looks_ahead_only():
    module = network("GRU", bidirectional=True)
    found = relevance(module, sequences(), unit=UNITS + 1, step=6)["relevance"].values
    assert not found[:, :6].any()
    assert found[:, 6:].all()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_channel_that_no_weight_reads_has_no_relevance_at_all(kind):
    module = network(kind)
    with torch.no_grad():
        module.weight_ih_l0[:, 2] = 0
    found = relevance(module, sequences(), unit=3, passes=5)
    for name in ("relevance", "relevance_mean", "relevance_std"):
        assert not found[name].values[..., 2].any()
        assert found[name].values[..., 1].any()


def test_carried_states_are_reported_with_their_share():
    module, x = network("LSTM"), sequences(steps=3)
    initial = tuple(np.random.default_rng(5).normal(size=(1, SAMPLES, UNITS)) for _ in range(2))
    expected = module(torch.from_numpy(x), tuple(map(torch.from_numpy, initial)))[0]
    found = relevance(module, x, unit=2, initial=initial, conserve=True)
    np.testing.assert_allclose(found["output"], expected[:, -1, 2].detach(), atol=1e-12)
    assert (abs(found["carried"]) > 1e-2).all()
    np.testing.assert_allclose(found["unexplained"], 0, atol=1e-9)
    assert (abs(relevance(module, x, unit=2)["carried"]) == 0).all()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_padded_sequences_are_explained_as_if_alone(kind):
    module = network(kind, num_layers=2, bidirectional=True)
    x = sequences()
    padded = x.copy()
    padded[1, 9:] = np.nan
    for unit in (1, UNITS + 1):
        found = relevance(module, padded, unit=unit, step=4, passes=3)
        alone = relevance(module, x[1:2, :9], unit=unit, step=4)
        np.testing.assert_allclose(found["relevance"].values[1, :9], alone["relevance"].values[0], atol=1e-12)
        assert not found["relevance"].values[1, 9:].any()
        assert float(found["carried"][1]) == pytest.approx(float(alone["carried"][0]), abs=1e-12)
    assert relevance(module, padded, unit=0)["target_step"].values.tolist() == [14, 8, 14]


def test_the_spread_of_backward_dropout_follows_its_formula():
    """One hidden linear layer: Var R_i = p / (1 - p) sum_j (a_i w_ij / z_j R_j)^2, and the mean is R_i."""
    torch.manual_seed(1)
    module = nn.RNN(FEATURES, UNITS, num_layers=2, nonlinearity="relu", bias=False, batch_first=True).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    x, p = np.abs(sequences(steps=1, samples=1)), 0.3
    found = relevance(module, x, unit=2, epsilon=0.0, passes=20_000, dropout=p)
    w = module.weight_ih_l0.detach().numpy()
    hidden = w @ x[0, 0]
    on_hidden = hidden * module.weight_ih_l1[2].detach().numpy()
    parts = x[0, 0][:, None] * w.T / hidden * on_hidden
    np.testing.assert_allclose(found["relevance"].values[0, 0], parts.sum(axis=1), rtol=1e-12)
    spread = np.sqrt(p / (1 - p) * (parts**2).sum(axis=1))
    np.testing.assert_allclose(found["relevance_std"].values[0, 0], spread, rtol=0.03)  # 1 / sqrt(2 * 20,000) = 0.5 %
    standard_error = spread / np.sqrt(20_000)
    assert (abs(found["relevance_mean"].values[0, 0] - parts.sum(axis=1)) < 5 * standard_error).all()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_mean_over_passes_is_the_relevance_without_dropout(kind):
    found = relevance(network(kind, num_layers=2), sequences(steps=5), unit=2, passes=4000, dropout=0.2)
    standard_error = found["relevance_std"].values / np.sqrt(4000)
    difference = abs(found["relevance_mean"] - found["relevance"]).values
    assert (difference < 5 * standard_error + 1e-12).all()
    assert (found["relevance_std"].values > 0).any()


def test_masks_per_unit_grow_with_the_steps_that_a_unit_is_passed_in():
    """A unit that feeds itself alone: after n passages, kept with probability 1 - p, the scale is (1 - p)^-n."""
    module = nn.RNN(1, 1, bias=False, nonlinearity="relu", batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    found = relevance(
        module, np.ones((1, 4, 1)), unit=0, epsilon=0, passes=8, dropout=0.5, masks="unit", keep_passes=True
    )
    for drawn in found["relevance_passes"].values[:, 0, :, 0]:
        assert drawn.tolist() in ([8.0, 4.0, 2.0, 1.0], [0.0, 0.0, 0.0, 1.0])


def test_without_dropout_the_spread_is_exactly_zero_and_a_seed_repeats_the_masks():
    module, x = network("GRU"), sequences()
    still = relevance(module, x, unit=1, passes=6, dropout=0.0)
    assert not still["relevance_std"].values.any()
    np.testing.assert_array_equal(still["relevance_mean"], still["relevance"])
    one, other = (relevance(module, x, unit=1, passes=6, random_state=3, keep_passes=True) for _ in range(2))
    np.testing.assert_array_equal(one["relevance_passes"], other["relevance_passes"])
    assert one["relevance_passes"].sizes["pass"] == 6
    assert relevance(network("GRU", num_layers=2, dropout=0.4), x, unit=1, passes=2).attrs["dropout"] == 0.4


def test_nothing_of_the_module_changes():
    module = network("LSTM", num_layers=2, dropout=0.5).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    relevance(module, sequences(), unit=1, passes=2)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_lower_level_is_explained_as_if_it_stood_alone():
    module, x = network("LSTM", num_layers=2), sequences()
    alone = network("LSTM", seed=9)
    alone.load_state_dict({name: value for name, value in module.state_dict().items() if name.endswith("_l0")})
    lower, expected = relevance(module, x, unit=2, level=0), relevance(alone, x, unit=2)
    np.testing.assert_array_equal(lower["relevance"], expected["relevance"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": 6}, r"unit must lie in 0\.\.5, got 6"),
        ({"unit": 0, "step": 15}, r"step must lie in 0\.\.14 of sequence 0, got 15"),
        ({"unit": 0, "level": 1}, r"level must lie in 0\.\.0"),
        ({"unit": 0, "dropout": 1.0}, "dropout must lie in"),
        ({"unit": 0, "epsilon": -1}, "epsilon must not be negative"),
        ({"unit": 0, "masks": "all"}, "masks must be"),
        ({"unit": 0, "initial": (np.zeros((1, 3, 6)),)}, "an LSTM has 2 initial states"),
    ],
)
def test_bad_values_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        relevance(network("LSTM"), sequences(), **options)
    with pytest.raises(ValueError, match="with 4 features"):
        relevance(network("LSTM"), np.zeros((2, 3, 5)), unit=0)
    broken = sequences()
    broken[0, 3] = np.nan
    with pytest.raises(ValueError, match="only past the end"):
        relevance(network("LSTM"), broken, unit=0)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_blocks_of_samples_and_passes_give_what_one_piece_gives(monkeypatch, kind, bidirectional):
    module, x = network(kind, num_layers=2, bidirectional=bidirectional), sequences()
    steps = [14, 3, 8]
    options = {"unit": 2, "step": steps, "passes": 400, "keep_passes": True}
    whole = relevance(module, x, **options)
    monkeypatch.setattr("hiddenscope.analyses.relevance._BLOCK", 700)
    parts = relevance(module, x, **options)
    for name in ("relevance", "output", "carried", "unexplained"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, atol=1e-15)
    for found in (whole, parts):
        assert found["relevance_passes"].sizes == {"pass": 400, "sample": 3, "step": STEPS, "feature": FEATURES}
        passes = found["relevance_passes"].values
        np.testing.assert_allclose(found["relevance_mean"], passes.mean(axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["relevance_std"], passes.std(axis=0, ddof=1), rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(found["step_std"], passes.sum(axis=3).std(axis=0, ddof=1), rtol=1e-7, atol=1e-10)
    drawn = parts["relevance_passes"].values[:, 0]
    assert len(np.unique(drawn.reshape(400, -1), axis=0)) == 400, "every pass has masks of its own"


def test_only_the_steps_up_to_the_unit_are_computed_where_nothing_reads_backward():
    module, x = network("LSTM"), sequences(steps=STEPS)
    early = relevance(module, x, unit=1, step=4, passes=3)
    cut = relevance(module, x[:, :5], unit=1, step=4, passes=3)
    assert early["relevance"].sizes["step"] == STEPS
    for name in ("relevance", "relevance_mean", "relevance_std", "step_std"):
        np.testing.assert_array_equal(early[name].values[:, :5], cut[name])
        assert not early[name].values[:, 5:].any()
    np.testing.assert_array_equal(early["carried"], cut["carried"])
