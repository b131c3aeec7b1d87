"""The experiment on responses runs on real data, and its series is read as it stands in the package's file."""

from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from hiddenscope.experiments.datasets.co2 import co2_file, forecast_split, load_co2
from hiddenscope.experiments.experiment import Context, all_experiments
from hiddenscope.experiments.responses import METRICS, YARDSTICKS

OPTIONS = {"data": None, "sizes": None, "cell": "lstm"}


def test_a_quick_run_writes_its_tables_and_figures_and_is_resumed(tmp_path):
    experiment = all_experiments()["responses"]
    context = Context(tmp_path, quick=True, arguments=Namespace(**OPTIONS))
    experiment.run(context)
    agreed = pd.read_csv(tmp_path / "agreement.csv")
    assert set(agreed["metric"]) == {*METRICS, *YARDSTICKS}
    assert set(agreed["reading"]) == {"in-network", "isolated", "yardstick"}
    assert agreed["correlation"].dropna().between(-1, 1).all()
    areas = pd.read_csv(tmp_path / "removal.csv")
    assert set(areas["ranking"]) == {*METRICS, "combined", "true importance"}
    assert (tmp_path / "capacity-digits-by-rows.html").exists()
    again = Context(tmp_path, quick=True, arguments=Namespace(**OPTIONS))
    experiment.run(again)
    assert again.computed == []
    assert_allclose(pd.read_csv(tmp_path / "agreement.csv")["correlation"], agreed["correlation"])


def test_computed_anew_every_table_is_the_same_to_the_last_byte(tmp_path):
    tables = []
    for _ in range(2):
        all_experiments()["responses"].run(Context(tmp_path, quick=True, fresh=True, arguments=Namespace(**OPTIONS)))
        tables.append({path.name: path.read_bytes() for path in tmp_path.glob("*.csv")})
    assert set(tables[0]) == {"networks.csv", "agreement.csv", "removal.csv"}
    assert tables[0] == tables[1]


def test_sizes_that_make_no_layer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 or more"):
        all_experiments()["responses"].run(Context(tmp_path, arguments=Namespace(**{**OPTIONS, "sizes": [1]})))


def test_gaps_of_the_series_are_bridged_and_windows_do_not_reach_across(tmp_path):
    path = tmp_path / "co2.csv"
    path.write_text("date,co2\n" + "\n".join(f"{day},{'' if day in (3, 4) else 2 * day}" for day in range(40)))
    series = load_co2(path)
    assert_allclose(series, 2 * np.arange(40))
    train, test = forecast_split(series, weeks=3, ahead=2)
    assert train.inputs.shape == (28, 3, 1)
    assert test.inputs.shape == (4, 3, 1)
    assert_allclose(test.targets[:, 0] / train.inputs[0, -1, 0], 3.0, rtol=1e-6)  # 3 weeks after the window's middle
    with pytest.raises(ValueError, match="too few"):
        forecast_split(series, weeks=10, ahead=2)
    path.write_text("a,b\n1,2")
    with pytest.raises(ValueError, match="columns date and co2"):
        load_co2(path)
    path.write_text("date,co2\n1,\n")
    with pytest.raises(ValueError, match="no measurement"):
        load_co2(path)


def test_the_series_of_the_package_is_the_one_that_is_known():
    path = co2_file()
    if path is None:
        pytest.skip("statsmodels is not installed")
    series = load_co2(path)
    assert series.shape == (2284,)
    assert series[0] == 316.1
    assert 300 < series.min() < series.max() < 380
