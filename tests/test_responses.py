"""Step and sine responses agree with closed forms in discrete time, and with torch; models are left as they were."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm
from torch import nn

from hiddenscope.analyses.recurrence import drive, from_module, from_weights, side_by_side
from hiddenscope.analyses.response_metrics import sine_metrics, step_metrics, unwrapped
from hiddenscope.analyses.responses import (
    drive_all,
    drive_data,
    drive_one,
    drive_tokens,
    unit_responses,
)

OFFSET = 5.0  # keeps the states of a ReLU above 0, where it is linear


def leaky(*keeps):
    """Units ``h = a h + (1 - a) u``, each with its own a, resting at ``OFFSET``."""
    a = np.array(keeps)
    return from_weights(
        {"weight_ih": (1 - a)[:, None], "weight_hh": np.diag(a), "bias_ih": OFFSET * (1 - a)},
        kind="RNN",
        nonlinearity="relu",
    )


def constant_gates(kind, *, forget, input_gate=0.5, weight=1.0):
    """An LSTM or GRU of one unit whose gates are biases alone; the candidate reads the input, not the past."""

    def logit(p):
        return math.log(p / (1 - p))

    if kind == "LSTM":
        gates, rows = [logit(input_gate), logit(forget), 0.0, 0.0], 2
    else:  # GRU: r, z, n
        gates, rows = [0.0, logit(forget), 0.0], 2
    w_ih = np.zeros((len(gates), 1))
    w_ih[rows] = weight
    weights = {"weight_ih": w_ih, "weight_hh": np.zeros((len(gates), 1)), "bias_ih": np.array(gates)}
    return from_weights(weights, kind=kind)


@pytest.mark.parametrize(
    ("a", "settling_2", "settling_10", "delay", "gain", "phase"),
    [
        (0.5, 6, 4, 1, 0.99051, -5.571),
        (0.9, 38, 22, 7, 0.73191, -40.215),
        (0.98, 194, 114, 35, 0.20164, -75.569),
    ],
)
def test_leaky_units_have_the_numbers_of_the_discrete_formulas(a, settling_2, settling_10, delay, gain, phase):
    found = unit_responses(leaky(a), periods=[64], tolerance=0.10, rest=2000, steps=1200).squeeze("state").isel(unit=0)
    finer = unit_responses(leaky(a), periods=[64], tolerance=0.02, rest=2000, steps=1200).squeeze("state").isel(unit=0)
    omega = 2 * np.pi / 64
    exact_gain = (1 - a) / math.sqrt(1 - 2 * a * math.cos(omega) + a * a)
    exact_phase = -math.degrees(math.atan2(a * math.sin(omega), 1 - a * math.cos(omega)))
    assert (settling_10, settling_2) == (
        math.ceil(math.log(0.1) / math.log(a)),
        math.ceil(math.log(0.02) / math.log(a)),
    )
    for reading in found.reading:
        one = found.sel(reading=reading)
        assert one["step_flag"] == ""
        assert one["settling_time"] == settling_10
        assert finer.sel(reading=reading)["settling_time"] == settling_2
        assert one["delay_time"] == delay == math.ceil(math.log(0.5) / math.log(a))
        assert one["rise_time"] == math.ceil(math.log(0.1) / math.log(a)) - max(
            1, math.ceil(math.log(0.9) / math.log(a))
        )
        assert_allclose(one["overshoot"], 0.0, atol=1e-9)
        assert_allclose(one["change"], 1.0, rtol=1e-9)
        assert_allclose(one["amplitude"], 1.0 + OFFSET, rtol=1e-9)
        # The transient of 5 periods has decayed to a**320: nothing for a = 0.5 and 0.9, 0.0016 for 0.98.
        atol = 1e-9 + 0.02 * a**320
        assert_allclose(one["gain"].item(), exact_gain, atol=atol)
        assert_allclose(one["phase"].item(), exact_phase, atol=0.01)
        assert_allclose(one["lag"].item(), -exact_phase * 64 / 360, atol=0.002)
        assert round(exact_gain, 5) == gain
        assert round(exact_phase, 3) == phase
        assert_allclose(one["distortion"].item(), 0.0, atol=0.01 if a == 0.98 else 1e-6)
        assert_allclose(one["correlation"].item(), math.cos(math.radians(exact_phase)), atol=1e-3)
        assert_allclose(one["peak_frequency"].item(), 1 / 64)
        assert_allclose(one["sine_amplitude"].item(), OFFSET + exact_gain, rtol=0.002)


def test_the_continuous_phase_is_told_apart_from_the_discrete_one():
    found = unit_responses(leaky(0.5, 0.9, 0.98), periods=[64], readings=["in-network"])["phase"].values.ravel()
    taus = -1 / np.log([0.5, 0.9, 0.98])
    continuous = -np.degrees(np.arctan(2 * np.pi / 64 * taus))
    assert_allclose(continuous, [-8.06, -42.98, -78.37], atol=0.01)
    assert (np.abs(found - continuous) > 2.4).all()


def test_one_more_step_of_delay_turns_the_phase_by_one_step():
    """Two units in a row, the second a plain copy of the first one's past: u reaches it one step later."""
    chain = from_weights(
        {"weight_ih": [[1.0], [0.0]], "weight_hh": [[0.0, 0.0], [1.0, 0.0]], "bias_ih": [OFFSET, 0.0]},
        kind="RNN",
        nonlinearity="relu",
    )
    found = unit_responses(chain, periods=[64]).squeeze("state")
    there = found.sel(reading="in-network")
    assert_allclose(there["phase"].values.ravel(), [0.0, -5.625], atol=1e-9)
    assert_allclose(there["lag"].values.ravel(), [0.0, 1.0], atol=1e-9)
    assert_array_equal(there["delay_time"].values, [1.0, 2.0])
    alone = found.sel(reading="isolated")
    assert_array_equal(alone["step_flag"].values, ["", "dead"])
    assert_allclose(found["coupling"].values, [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize(("damping", "overshoot"), [(0.2, 0.5266), (0.5, 0.1630), (0.7, 0.0460)])
def test_a_second_order_unit_overshoots_as_control_theory_says(damping, overshoot):
    natural, length = 1.0, 0.04
    flow = np.array([[0.0, 1.0], [-(natural**2), -2 * damping * natural]])
    held = expm(np.block([[flow, np.array([[0.0], [natural**2]])], [np.zeros((1, 3))]]) * length)
    a, b = held[:2, :2], held[:2, 2:]
    rest = np.array([OFFSET, OFFSET])
    unit = from_weights({"weight_ih": b, "weight_hh": a, "bias_ih": rest - a @ rest}, kind="RNN", nonlinearity="relu")
    found = unit_responses(unit, periods=[8], readings=["in-network"], rest=3000, steps=3000, traces=True).squeeze()
    exact = math.exp(-math.pi * damping / math.sqrt(1 - damping**2))
    assert round(exact, 4) == overshoot
    assert_allclose(found["overshoot"].values[0], exact, atol=4e-4)
    peak = found["step_response"].isel(unit=0).argmax("step").item() * length
    assert_allclose(peak, math.pi / (natural * math.sqrt(1 - damping**2)), atol=length)
    assert found["step_flag"].values[1] == "no change"  # the velocity comes back to where it was
    assert np.isnan(found["settling_time"].values[1])


def test_an_lstm_with_constant_gates_charges_its_cell_like_a_leaky_unit():
    network = constant_gates("LSTM", forget=0.9, input_gate=0.5)
    found = unit_responses(network, states=["h", "c"], tolerance=0.02, periods=[8]).isel(unit=0)
    for reading in found.reading:
        c, h = (found.sel(reading=reading, state=state) for state in ("c", "h"))
        assert_allclose(c["final"], 0.5 * math.tanh(1) / (1 - 0.9), rtol=1e-9)
        assert round(c["final"].item(), 5) == 3.80797
        assert c["settling_time"] == 38
        assert h["settling_time"] < c["settling_time"]
        assert_allclose(h["final"], 0.5 * math.tanh(c["final"]), rtol=1e-9)  # o = sigmoid(0)


def test_a_gru_with_a_constant_update_gate_is_leaky_with_that_gate():
    found = unit_responses(constant_gates("GRU", forget=0.9), tolerance=0.02, periods=[64]).squeeze()
    assert_array_equal(found["settling_time"], [38, 38])
    assert_array_equal(found["delay_time"], [7, 7])
    # For a small signal, tanh is its argument: the gain and phase of the leaky unit.
    small = unit_responses(constant_gates("GRU", forget=0.9, weight=1e-2), periods=[64]).squeeze()
    assert_allclose(small["gain"], [0.73191e-2] * 2, rtol=1e-4)
    assert_allclose(small["phase"], [-40.215] * 2, atol=0.01)


@settings(max_examples=15)
@given(
    st.lists(st.floats(-0.95, 0.95), min_size=1, max_size=5),
    st.sampled_from(["RNN", "LSTM", "GRU"]),
    st.integers(0, 99),
)
def test_isolated_equals_in_network_where_the_recurrence_is_diagonal(own, kind, seed):
    rng = np.random.default_rng(seed)
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    weights = {
        "weight_ih": rng.normal(size=(gates * len(own), 2)),
        "weight_hh": np.concatenate([np.diag(np.array(own) * rng.uniform(0.5, 1)) for _ in range(gates)]),
        "bias_ih": rng.normal(size=gates * len(own)),
        "bias_hh": rng.normal(size=gates * len(own)),
    }
    signals = rng.normal(size=(3, 20))
    found = [
        drive(from_weights(weights, kind=kind), signals, baseline=[0.3, 0], direction=[1, -2], rest=4, reading=reading)
        for reading in ("in-network", "isolated")
    ]
    for state in found[0]:
        assert_allclose(found[0][state], found[1][state], atol=1e-12)


def test_isolated_units_see_their_own_past_alone():
    torch.manual_seed(0)
    module = nn.GRU(2, 5).double()
    signals = np.random.default_rng(0).normal(size=(2, 12))
    found = drive(from_module(module), signals, baseline=[0.1, 0.2], direction=[1.0, -1.0], rest=3, reading="isolated")
    for unit in range(5):
        alone = nn.GRU(2, 1).double()
        rows = [unit, 5 + unit, 10 + unit]
        with torch.no_grad():
            alone.weight_ih_l0.copy_(module.weight_ih_l0[rows])
            alone.weight_hh_l0.copy_(module.weight_hh_l0[rows][:, [unit]])
            alone.bias_ih_l0.copy_(module.bias_ih_l0[rows])
            alone.bias_hh_l0.copy_(module.bias_hh_l0[rows])
            answer = alone(torch.from_numpy(inputs_of(signals, [0.1, 0.2], [1.0, -1.0], rest=3)))[0]
        assert_allclose(found["h"][0, :, unit], answer[..., 0].T, atol=1e-12)


def inputs_of(signals, baseline, direction, *, rest):
    """(step, signal, input), as torch takes them."""
    padded = np.concatenate([np.zeros((len(signals), rest)), signals], axis=1).T
    return np.asarray(baseline) + padded[:, :, None] * np.asarray(direction)


@pytest.mark.parametrize(
    "module",
    [
        nn.RNN(2, 5),
        nn.RNN(2, 5, nonlinearity="relu", bias=False),
        nn.LSTM(2, 5, num_layers=3),
        nn.GRU(2, 5, num_layers=2, dropout=0.5),
        nn.LSTM(2, 5, num_layers=2, proj_size=3),
        nn.LSTM(2, 5, bidirectional=True),
    ],
    ids=repr,
)
def test_what_is_driven_here_is_what_torch_computes(module):
    module = module.double()
    signals = np.random.default_rng(1).normal(size=(3, 15))
    level = module.num_layers - 1
    found = drive(from_module(module), signals, baseline=[0.3, -1], direction=[2, 1], rest=6, level=level)
    was = module.training
    with torch.no_grad():
        answer = module.eval()(torch.from_numpy(inputs_of(signals, [0.3, -1], [2, 1], rest=6)))
    module.train(was)
    units = found["h"].shape[2]
    assert_allclose(found["h"][0], answer[0][..., :units].permute(1, 2, 0), atol=1e-12)
    if isinstance(module, nn.LSTM) and not module.bidirectional:
        assert_allclose(found["c"][0, ..., -1], answer[1][1][-1], atol=1e-12)


def test_above_a_bidirectional_level_the_backward_half_stays_at_rest():
    torch.manual_seed(3)
    module = nn.GRU(2, 4, num_layers=2, bidirectional=True).double()
    signals = np.random.default_rng(1).normal(size=(2, 10))
    found = drive(from_module(module), signals, baseline=[0.5, 0.1], direction=[1, 1], rest=200, level=1)["h"]
    with torch.no_grad():
        given = torch.from_numpy(inputs_of(signals, [0.5, 0.1], [1, 1], rest=200))
        below = nn.GRU(2, 4, bidirectional=True).double()
        below.load_state_dict({name: value for name, value in module.state_dict().items() if "_l0" in name})
        forward = below(given)[0][..., :4]
        resting = below(given[:200])[0][:1, :, 4:].expand(len(given), -1, -1)  # read from the far end of the rest
        above = nn.GRU(8, 4).double()
        above.load_state_dict(
            {
                name.replace("_l1", "_l0"): value
                for name, value in module.state_dict().items()
                if "_l1" in name and "reverse" not in name
            }
        )
        answer = above(torch.cat([forward, resting], dim=-1))[0]
    assert_allclose(found[0][..., 100:], answer.permute(1, 2, 0)[..., 100:], atol=1e-9)


def test_networks_side_by_side_answer_as_each_does_alone():
    torch.manual_seed(0)
    modules = [nn.LSTM(3, 4, num_layers=2).double() for _ in range(3)]
    along = drive_one(3, 2)
    together = unit_responses(side_by_side([from_module(module) for module in modules]), drive_along=along, periods=[8])
    for at, module in enumerate(modules):
        alone = unit_responses(module, "lstm.l1", drive_along=along, periods=[8])
        for name in alone.data_vars:
            if alone[name].dtype.kind == "U":
                assert_array_equal(together[name].isel(network=at), alone[name])
            else:
                assert_allclose(together[name].isel(network=at), alone[name], atol=1e-9)
    with pytest.raises(ValueError, match="one shape"):
        side_by_side([from_module(modules[0]), from_module(nn.LSTM(3, 5, num_layers=2))])


def test_a_model_in_training_is_left_exactly_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.LSTM(3, 4, num_layers=2, dropout=0.5))
    model[1].eval()
    model[2](torch.zeros(2, 1, 3))[0].sum().backward()
    weights = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    unit_responses(model, "2.l1", periods=[8])
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (gradient is None) == (parameter.grad is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state()) == states[2]  # noqa: NPY002


def test_units_keep_their_numbers_when_they_change_places():
    torch.manual_seed(1)
    module = nn.LSTM(2, 6).double()
    order = np.random.default_rng(0).permutation(6)
    moved = nn.LSTM(2, 6).double()
    rows = np.concatenate([gate * 6 + order for gate in range(4)])
    with torch.no_grad():
        for name, value in module.named_parameters():
            fresh = value[rows] if name != "weight_hh_l0" else value[rows][:, order]
            getattr(moved, name).copy_(fresh)
    first, second = unit_responses(module, periods=[16]), unit_responses(moved, periods=[16])
    for name in ("settling_time", "gain", "phase", "overshoot", "coupling"):
        assert_allclose(second[name].values, first[name].isel(unit=order).values, atol=1e-9)


def test_identical_units_get_identical_numbers():
    torch.manual_seed(0)
    module = nn.RNN(1, 2).double()
    with torch.no_grad():
        module.weight_ih_l0[1] = module.weight_ih_l0[0]
        module.weight_hh_l0[:] = torch.tensor([[0.4, 0.2], [0.2, 0.4]])
        module.bias_ih_l0[1], module.bias_hh_l0[1] = module.bias_ih_l0[0], module.bias_hh_l0[0]
    found = unit_responses(module, periods=[8])
    for name in ("settling_time", "gain", "phase"):
        assert_array_equal(found[name].isel(unit=0), found[name].isel(unit=1))


TIME = np.arange(1, 401)


@pytest.mark.parametrize(
    ("before", "after", "flag"),
    [
        (np.zeros(50), np.sin(TIME / 3), "not settled"),  # cycles for ever
        (np.zeros(50), 1 - 0.999**TIME, "not settled"),  # still on its way
        (np.zeros(50), np.full(400, 1e-6), "dead"),
        (np.full(50, 0.999), np.full(400, 0.99901), "saturated"),
        (1 - 0.99 ** np.arange(50), np.ones(400), "not at rest"),  # the rest was too short
        (np.zeros(50), np.exp(-TIME / 10.0), "no change"),
        (np.zeros(50), np.where(TIME > 300, np.inf, TIME), "diverged"),
        (np.zeros(50), 1 - 0.9**TIME, ""),
        (np.zeros(50), -0.01 * (1 - 0.9**TIME), ""),
    ],
)
def test_what_is_not_defined_is_missing_and_says_why(before, after, flag):
    found = step_metrics([np.concatenate([before, after])], switch=50)
    assert found["flag"].item() == flag
    for name in ("settling_time", "delay_time", "rise_time", "overshoot"):
        assert np.isnan(found[name].item()) == (flag != "")
    assert np.isnan(found["change"].item()) == (flag in ("not settled", "not at rest", "diverged"))


def test_a_downward_response_is_measured_like_an_upward_one():
    answer = np.concatenate([np.zeros(20), 1 - 0.8**TIME * np.cos(TIME / 2)])
    up, down = step_metrics([answer], switch=20), step_metrics([-answer], switch=20)
    for name in ("settling_time", "delay_time", "rise_time", "overshoot"):
        assert up[name].item() == down[name].item()
    assert up["change"].item() == -down["change"].item()
    assert up["overshoot"].item() > 0.1


@pytest.mark.parametrize(
    ("states", "flag"),
    [
        (np.zeros(64), "dead"),
        (np.full(64, -0.9999), "saturated"),
        (np.full(64, np.nan), "diverged"),
        (np.sin(2 * np.pi * np.arange(64) / 8), "other frequencies"),
    ],
)
def test_a_sine_without_an_answer_has_no_phase(states, flag):
    found = sine_metrics([states], period=16)
    assert found["flag"].item() == flag
    assert np.isnan(found["phase"].item())
    assert np.isnan(found["distortion"].item())
    if flag == "other frequencies":
        assert found["peak_frequency"].item() == 1 / 8


@given(
    st.integers(3, 40),
    st.integers(1, 6),
    st.floats(0.01, 3),
    st.floats(-179, 179),
    st.floats(0, 1),
    st.floats(0.1, 2),
)
def test_the_lock_in_finds_gain_phase_and_distortion(period, cycles, gain, phase, second, amplitude):
    t = np.arange(period * cycles)
    angle = 2 * np.pi * t / period
    y = 0.3 + gain * amplitude * np.sin(angle + math.radians(phase))
    if period > 4:  # below, the second harmonic folds back
        y = y + second * gain * amplitude * np.sin(2 * angle + 1)
    found = sine_metrics([y], period=period, amplitude=amplitude)
    assert_allclose(found["gain"].item(), gain, rtol=1e-9)
    assert_allclose(found["phase"].item(), phase, atol=1e-6)
    assert_allclose(found["lag"].item(), -phase * period / 360, atol=1e-6)
    assert_allclose(found["distortion"].item(), second if period > 4 else 0.0, atol=1e-6)


def test_settling_agrees_with_a_loop_over_the_definition():
    rng = np.random.default_rng(5)
    for _ in range(30):
        rate, turn = rng.uniform(0.7, 0.97), rng.uniform(0, 1)
        answer = np.concatenate([np.zeros(10), 2 - 2 * rate**TIME * np.cos(turn * TIME)])
        final = answer[-40:].mean()
        wanted = next(n for n in range(1, 401) if (abs(answer[9 + n :] - final) <= 0.05 * abs(final)).all())
        assert step_metrics([answer], switch=10, tolerance=0.05)["settling_time"].item() == wanted


def test_phases_are_continued_over_frequency():
    """A pure delay of 5 steps has phase -360 * 5 / period, far beyond half a turn."""
    periods = np.array([4, 8, 16, 32, 64])
    exact = -360 * 5 / periods
    wrapped = (exact + 180) % 360 - 180
    assert_allclose(unwrapped(wrapped)[2:], exact[2:])
    assert_allclose(unwrapped(np.stack([exact, wrapped]))[0], unwrapped(exact))


def test_the_drives_go_where_they_say():
    rng = np.random.default_rng(0)
    line = np.array([3.0, -4.0]) / 5
    data = np.array([1.0, 2.0]) + rng.normal(size=(6, 50, 1)) * 2 * line
    data[0, 40:] = np.nan
    flat = data.reshape(-1, 2)[np.isfinite(data.reshape(-1, 2)).all(axis=1)]
    each, component = drive_data(data), drive_data(data, along="component")
    assert_allclose(each.baseline, flat.mean(axis=0))
    assert_allclose(each.direction, flat.std(axis=0))
    assert_allclose(component.direction, -line * (flat @ line).std(), rtol=1e-9)
    tokens = drive_tokens([[1.0, 0.0], [0.0, 2.0]], start=0, end=1)
    assert_allclose(tokens.baseline + tokens.direction, [0.0, 2.0])
    assert drive_one(3, 0).direction.tolist() == [1, 0, 0]


def test_a_drive_moves_what_it_says():
    """Two linear units that each copy one input: only the driven one answers, from the baseline on."""
    copy_unit = from_weights(
        {"weight_ih": np.eye(2), "weight_hh": np.zeros((2, 2)), "bias_ih": [OFFSET] * 2},
        kind="RNN",
        nonlinearity="relu",
    )
    found = unit_responses(copy_unit, drive_along=drive_one(2, 1), amplitude=3.0, periods=[8], readings=["in-network"])
    assert_array_equal(found["step_flag"].values.ravel(), ["dead", ""])
    assert_allclose(found["final"].values.ravel(), [OFFSET, OFFSET + 3])
    assert_allclose(found["gain"].values.ravel(), [0, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": [2]}, "3 steps or more"),
        ({"amplitude": 0}, "above 0"),
        ({"states": ["c"]}, "a GRU has the state 'h' alone, got 'c'"),
        ({"layer": "lstm"}, "recurrent layers 'gru'"),
        ({"level": 0}, "layer="),
        ({"readings": ["alone"]}, "got reading 'alone'"),
        ({"readings": []}, "at least one"),
        ({"tolerance": 1.5}, "between 0 and 1"),
        ({"drive_along": drive_all(3)}, "one number per input"),
    ],
)
def test_what_cannot_be_asked_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        unit_responses(nn.GRU(2, 3), **options)


def test_units_behind_a_projection_are_read_in_the_network_alone():
    module = nn.LSTM(2, 5, proj_size=3)
    assert unit_responses(module, periods=[8]).sizes["reading"] == 1
    with pytest.raises(ValueError, match=r"projection .* read them in-network"):
        unit_responses(module, readings=["isolated"])


def test_models_that_cannot_be_driven_say_so():
    with pytest.raises(ValueError, match=r"has no nn\.RNN"):
        unit_responses(nn.TransformerEncoderLayer(4, 2))
    with pytest.raises(ValueError, match="recurrent layers '0', '1'; say which"):
        unit_responses(nn.ModuleList([nn.GRU(2, 3), nn.LSTM(2, 3)]))
    with pytest.raises(ValueError, match=r"only nn\.RNN"):
        from_module(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="both needed"):
        from_weights({"weight_ih": [[1.0]]}, kind="RNN")
    with pytest.raises(ValueError, match="got a xLSTM"):
        from_weights({"weight_ih": [[1.0]]}, kind="xLSTM")
    projected = nn.LSTM(2, 5, proj_size=3)
    assert unit_responses(projected, periods=[8]).reading.values.tolist() == ["in-network"]
    with pytest.raises(ValueError, match="projection"):
        drive(from_module(projected), [1.0], baseline=[0, 0], direction=[1, 1], rest=2, reading="isolated")


def test_cells_and_bidirectional_layers_are_driven_too():
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 3)
    same = nn.LSTM(2, 3)
    with torch.no_grad():
        for name, value in cell.named_parameters():
            getattr(same, f"{name}_l0").copy_(value)
    one, other = unit_responses(cell, periods=[8]), unit_responses(same, periods=[8])
    assert_allclose(one["gain"], other["gain"])
    both = unit_responses(nn.GRU(2, 3, bidirectional=True), periods=[8])
    assert both.unit.values.tolist() == ["forward 0", "forward 1", "forward 2"]
