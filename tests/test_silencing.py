"""Confusion matrices of silenced networks, and ablated steps, against what was worked out by hand."""

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hiddenscope.analyses.ablation import ablate_steps, derangement
from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.silencing import count_passes, silence_clusters


class Relay(nn.Module):
    """Three relu units, worked out by hand.

    Unit 0 copies feature 0 of this step; unit 1 feature 1; unit 2 what unit 0 held one step before. The readout sees
    units 1 and 2 after the last step: logits (2 h2, 2 h1, 1). So class 0 is told by feature 0 of the last step but one,
    class 1 by feature 1 of the last step, and class 2 by silence.
    """

    def __init__(self):
        super().__init__()
        self.core = nn.RNN(2, 3, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
            self.core.weight_ih_l0[0, 0] = self.core.weight_ih_l0[1, 1] = 1
            self.core.weight_hh_l0[2, 0] = 1
            self.head.weight[0, 2] = self.head.weight[1, 1] = 2
            self.head.bias[2] = 1

    def forward(self, x):
        return self.head(self.core(x)[0][:, -1])


def messages():
    """Two sequences of 4 steps of class 0, three of class 1, one of class 2."""
    labels = torch.tensor([0, 1, 1, 2, 0, 1])
    x = torch.zeros(6, 4, 2)
    x[labels == 0, 2, 0] = 1
    x[labels == 1, 3, 1] = 1
    return x, labels


WHOLE = [[2, 0, 0], [0, 3, 0], [0, 0, 1]]
NO_FIRST = [[0, 0, 2], [0, 3, 0], [0, 0, 1]]
NO_SECOND = [[2, 0, 0], [0, 0, 3], [0, 0, 1]]
NOTHING = [[0, 0, 2], [0, 0, 3], [0, 0, 1]]


def silenced(names, **options):
    clusters = xr.DataArray(names, dims="unit", coords={"unit": np.arange(3)})
    return silence_clusters(ModelAccess(Relay()), "core", {"validation": messages()}, clusters, **options)


def test_each_cluster_alone_and_the_rest_without_it_give_the_matrices_worked_out_by_hand():
    found = silenced(["A", "B", "C"]).isel(part=0)
    assert_array_equal(found.confusion_whole, WHOLE)
    inside, outside = found.sel(mode="recurrence"), found.sel(mode="readout")
    # Unit 0 is never read out: alone it says nothing. Without it unit 2 has nothing to relay, but for the readout,
    # which does not miss it.
    assert_array_equal(inside.confusion_alone.sel(cluster="A"), NOTHING)
    assert_array_equal(outside.confusion_alone.sel(cluster="A"), NOTHING)
    assert_array_equal(inside.confusion_without.sel(cluster="A"), NO_FIRST)
    assert_array_equal(outside.confusion_without.sel(cluster="A"), WHOLE)
    # Unit 1 alone tells class 1.
    assert_array_equal(inside.confusion_alone.sel(cluster="B"), NO_FIRST)
    assert_array_equal(inside.confusion_without.sel(cluster="B"), NO_SECOND)
    # Unit 2 alone: in the recurrence it hears nothing, in the readout it still hears unit 0.
    assert_array_equal(inside.confusion_alone.sel(cluster="C"), NOTHING)
    assert_array_equal(outside.confusion_alone.sel(cluster="C"), NO_SECOND)
    assert_array_equal(inside.confusion_without.sel(cluster="C"), NO_FIRST)


def test_the_two_units_of_a_relay_together_keep_their_class():
    found = silenced(["A", "B", "A"]).isel(part=0).sel(mode="recurrence")
    assert_array_equal(found.confusion_alone.sel(cluster="A"), NO_SECOND)
    assert_array_equal(found.confusion_without.sel(cluster="A"), NO_FIRST)


def test_what_a_unit_is_worth_is_the_loss_and_accuracy_without_it():
    found = silenced(["A", "B", "C"]).isel(part=0)

    def loss(right, wrong_a, wrong_b):
        return -np.log(np.exp(right) / (np.exp(right) + np.exp(wrong_a) + np.exp(wrong_b)))

    quiet = loss(1, 0, 0)
    whole = (5 * loss(2, 0, 1) + quiet) / 6
    assert_allclose(found.loss_whole, whole)
    missing_first = (2 * loss(0, 0, 1) + 3 * loss(2, 0, 1) + quiet) / 6 - whole
    missing_second = (3 * loss(0, 0, 1) + 2 * loss(2, 0, 1) + quiet) / 6 - whole
    assert_allclose(found.unit_loss.sel(mode="recurrence"), [missing_first, missing_second, missing_first])
    assert_allclose(found.unit_loss.sel(mode="readout"), [0, missing_second, missing_first], atol=1e-15)
    assert_allclose(found.unit_accuracy.sel(mode="recurrence"), [2 / 6, 3 / 6, 2 / 6])
    assert_allclose(found.importance, found.unit_loss.sel(mode="recurrence"))
    assert found.attrs["unit_columns"] == {"importance": "importance (nats)"}


def test_batches_parts_and_pairs_agree_and_passes_are_counted():
    clusters = xr.DataArray(["A", "B", ""], dims="unit")
    x, y = messages()
    ticks = []
    data = {"training": DataLoader(TensorDataset(x, y), 4), "validation": (x.numpy(), y.numpy())}
    found = silence_clusters(ModelAccess(Relay()), "core", data, clusters, tick=lambda: ticks.append(1))
    assert found.cluster.values.tolist() == ["A", "B"]
    xr.testing.assert_allclose(found.isel(part=0, drop=True), found.isel(part=1, drop=True))
    assert count_passes({"validation": data["validation"]}, clusters) * 3 == len(ticks)
    assert count_passes(data, clusters) is None


def test_answers_for_every_step_are_judged_at_every_step():
    class Steps(Relay):
        def forward(self, x):
            return self.head(self.core(x)[0])

    clusters = xr.DataArray(["A"] * 3, dims="unit")
    x, y = messages()
    found = silence_clusters(ModelAccess(Steps()), "core", {"validation": (x, y)}, clusters, modes=["readout"])
    assert int(found.confusion_whole.sum()) == 24
    # Class 0 shows at its last step alone, class 1 as well; at all other steps the network says class 2.
    assert_array_equal(found.confusion_whole.isel(part=0), [[2, 0, 6], [0, 3, 9], [0, 0, 4]])
    by_step = y[:, None].expand(6, 4)
    again = silence_clusters(ModelAccess(Steps()), "core", {"validation": (x, by_step)}, clusters, modes=["readout"])
    xr.testing.assert_equal(found, again)


def test_data_that_do_not_fit_are_refused_in_words():
    clusters = xr.DataArray(["A"] * 3, dims="unit")
    x, y = messages()
    access = ModelAccess(Relay())
    with pytest.raises(ValueError, match=r"labels lie in 0..2 for 3 logits, got 1..3"):
        silence_clusters(access, "core", {"validation": (x, y + 1)}, clusters)
    with pytest.raises(ValueError, match=r"for labels \(6, 2\), got \(6, 3\)"):
        silence_clusters(access, "core", {"validation": (x, torch.zeros(6, 2))}, clusters)
    with pytest.raises(ValueError, match="no part"):
        silence_clusters(access, "core", {}, clusters)
    with pytest.raises(ValueError, match="no sequence"):
        silence_clusters(access, "core", {"validation": []}, clusters)


def test_ablating_a_step_that_nothing_uses_changes_the_loss_by_exactly_nothing():
    found = ablate_steps(ModelAccess(Relay()), "core", *messages(), steps=range(4))
    # Step 0 and 1: two steps later, nothing is left of the state. Step 2 holds class 0, step 3 classes 0 and 1.
    assert (found.loss_change.sel(step=[0, 1]) == 0.0).all()
    assert (found.loss_change.sel(step=[2, 3]) > 0.01).all()


def test_an_ablated_step_costs_what_was_worked_out_by_hand():
    found = ablate_steps(ModelAccess(Relay()), "core", *messages(), steps=[2], kinds=["mean"]).loss_change.item()

    def loss(right, wrong_a, wrong_b):
        return -np.log(np.exp(right) / (np.exp(right) + np.exp(wrong_a) + np.exp(wrong_b)))

    # The mean of unit 0 after step 2 is 1/3 for all sequences, so that all read 2/3 for class 0.
    leak = 2 / 3
    before = (2 * loss(2, 0, 1) + 3 * loss(2, 0, 1) + loss(1, 0, 0)) / 6
    after = (2 * loss(leak, 0, 1) + 3 * loss(2, leak, 1) + loss(1, leak, 0)) / 6
    assert found == pytest.approx(after - before, abs=1e-6)


def test_swapping_the_last_state_swaps_the_answers():
    x, y = messages()
    order = derangement(6, seed=0)
    access = ModelAccess(Relay())
    answers = access.answer(x)[order]
    expected = nn.functional.cross_entropy(answers, y) - nn.functional.cross_entropy(access.answer(x), y)
    found = ablate_steps(access, "core", x, y, steps=[3], kinds=["shuffled"], seed=0)
    assert found.loss_change.item() == pytest.approx(expected.item(), abs=1e-6)


def test_several_models_give_a_row_for_each_epoch():
    models = {0.0: ModelAccess(Relay()), 4.0: ModelAccess(Relay())}
    models[0.0].model.head.weight.data.zero_()  # untrained: nothing is read, nothing is lost
    found = ablate_steps(models, "core", *messages(), steps=range(4))
    assert found.epoch.values.tolist() == [0.0, 4.0]
    assert (found.loss_change.sel(epoch=0.0) == 0.0).all()
    assert (found.loss_change.sel(epoch=4.0, step=3) > 0).all()
    with pytest.raises(ValueError, match="at least 2 sequences, got 1"):
        ablate_steps(models, "core", messages()[0][:1], messages()[1][:1], steps=[0])
