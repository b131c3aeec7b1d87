"""The table of units agrees with loops over its definitions."""

import numpy as np
import pytest
import xarray as xr

from hiddenscope.dashboard.units import unit_table


@pytest.fixture
def result():
    rng = np.random.default_rng(1)
    coords = {"epoch": np.arange(4.0), "step": np.arange(3), "unit": ["a", "b"]}
    return xr.Dataset(
        {
            "embedding": (("epoch", "step", "unit", "component"), rng.normal(size=(4, 3, 2, 3))),
            "inter_step_entropy": (("epoch", "unit"), rng.normal(size=(4, 2))),
            "most_active_class": (("epoch", "step", "unit"), rng.integers(0, 2, size=(4, 3, 2))),
        },
        coords=coords,
    )


def test_the_table_holds_what_it_says(result):
    table = unit_table(result, ("walk", "sit"))
    points = result["embedding"].values
    spread = np.sqrt(np.mean([points[..., k].var() for k in range(3)]))
    for i, unit in enumerate("ab"):
        row = table.iloc[i]
        assert row["unit"] == unit
        assert row["entropy"] == result["inter_step_entropy"].values[3, i]
        assert row["change"] == pytest.approx(row["entropy"] - result["inter_step_entropy"].values[0, i])
        path = sum(np.linalg.norm(points[e + 1, s, i] - points[e, s, i]) for e in range(3) for s in range(3))
        assert row["travel"] == pytest.approx(path / 3 / spread)
        codes = list(result["most_active_class"].values[3, :, i])
        best = max((0, 1), key=codes.count)
        assert row["class"] == ("walk", "sit")[best]
        assert row["share"] == pytest.approx(codes.count(best) / 3)


def test_without_labels_there_are_no_classes_and_one_epoch_has_no_travel(result):
    table = unit_table(result.isel(epoch=[0]))
    assert list(table.columns) == ["unit", "entropy", "change", "travel"]
    assert (table["travel"] == 0).all()
    assert (table["change"] == 0).all()
