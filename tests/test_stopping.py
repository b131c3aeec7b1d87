"""Rules that choose an epoch choose what they say, and are compared training by training."""

import json

import numpy as np
import pytest
import xarray as xr

from hiddenscope.experiments.experiment import Context, all_experiments, carry_out
from hiddenscope.experiments.stopping import RULES, compare, early_stop, rank_correlation, summarize


def run_with(**curves):
    names = ("val_loss", "silhouette", "train_silhouette", "fisher_ratio", "nearest_centroid", "ari")
    flat = {name: np.zeros(12) for name in (*names, "test_accuracy", "test_loss")}
    return xr.Dataset({name: ("epoch", np.asarray(values, float)) for name, values in (flat | curves).items()})


def test_each_rule_chooses_the_epoch_it_names():
    down = [9, 8, 7, 6, 5, 4, 3, 5, 6, 7, 8, 9]
    up = [0, 1, 2, 3, 2, 2, 2, 2, 2, 2, 9, 2]
    run = run_with(val_loss=down, silhouette=up, test_accuracy=np.arange(12))
    found = compare({0: run}).set_index("rule").epoch
    assert found["lowest validation loss"] == found["validation loss, patience 5"] == 6
    assert found["highest separability"] == 10
    assert found["separability, patience 5"] == 3
    assert found["last epoch"] == found["best on test (out of reach)"] == 11
    assert found["first plateau of separability"] == 7  # 2 as five epochs before
    assert list(found.index) == list(RULES)


@pytest.mark.parametrize(("patience", "expected"), [(1, 1), (2, 1), (3, 4)])
def test_patience_is_how_long_no_new_best_is_waited_for(patience, expected):
    assert early_stop([0, 5, 1, 1, 9, 1], patience=patience) == expected


def test_rules_are_compared_training_by_training():
    runs = {
        seed: run_with(val_loss=-np.arange(12.0), silhouette=-np.arange(12.0), test_accuracy=np.linspace(0, 1, 12) ** 2)
        for seed in range(6)
    }
    summary = summarize(compare(runs)).set_index("rule")
    assert summary.worse["highest separability"] == 6
    assert summary.difference["highest separability"] == -1
    assert summary.p["highest separability"] == pytest.approx(2 / 2**6)
    assert summary.p["lowest validation loss"] == 1
    assert summary.better["best on test (out of reach)"] == 0


def test_a_correlation_of_ranks_ignores_the_scale_and_knows_when_it_is_undefined():
    assert rank_correlation([1, 2, 3], [1, 10, 100]) == pytest.approx(1)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_the_experiment_leaves_its_tables_and_reuses_its_trainings(tmp_path):
    pytest.importorskip("seglearn")
    experiment = all_experiments()["stopping"]
    first = Context(tmp_path, quick=True, arguments=arguments())
    carry_out(experiment, first, pictures=False)
    again = Context(tmp_path, quick=True, arguments=arguments())
    summary = json.loads(carry_out(experiment, again, pictures=False).read_text())
    assert first.computed == again.reused == ["training", "training"]
    assert summary["status"] == "finished"
    assert {"chosen.csv", "rules.csv", "correlations.csv", "stopping.html"} <= set(summary["files"])
    assert (tmp_path / "rules.csv").read_text().count("\n") == len(RULES) + 1


def arguments():
    import argparse

    parser = argparse.ArgumentParser()
    all_experiments()["stopping"].add_arguments(parser)
    return parser.parse_args([])
