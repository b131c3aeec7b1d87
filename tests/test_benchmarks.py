"""The benchmarks run, at toy size, and say honestly what they could not measure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import child, measure, report, rows, traces  # noqa: E402

TOY = traces.Lstm(units=5, steps=5, samples=4, snapshots=12, batches=1)


def in_this_process(
    name: str, method: str, trace: Path, *, nodes: int, options: dict[str, Any], threads: int = 2, limit_s: float = 0
) -> measure.Measurement:
    """What `measure` does, without the price of a fresh interpreter; m-phate and UMAP are as if not installed."""
    blank = measure.Measurement(name, method, nodes, options)
    if method in ("m_phate", "umap", "tsne"):
        return measure.Measurement(name, method, nodes, options, failure="not installed")
    values = np.load(trace)
    made = child.METHODS[method](
        values, {**options, **({} if method == "pca" else {"n_landmark": 20, "inter_knn": 5})}
    )()
    picture, series = made if isinstance(made, tuple) else (made, None)
    path = trace.with_name(f"picture-{name}.npy")
    np.save(path, np.asarray(picture).reshape(*values.shape[:3], -1))
    return measure.Measurement(blank.name, method, nodes, options, 1.0, 1.0, 2**20, str(path), series)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "KEPT", tmp_path)
    monkeypatch.setattr(rows, "measure", in_this_process)
    for name in ("WIDE", "LONG", "LIVE", "SMALL"):
        monkeypatch.setattr(traces, name, TOY)
    monkeypatch.setattr(rows, "_FITS", {})
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bifurcation-80.npy", rng.normal(size=(20, 3, 6, 5)).cumsum(axis=0).astype(np.float32))
    np.save(tmp_path / "bifurcation-10.npy", rng.normal(size=(8, 3, 6, 5)).astype(np.float32))


@pytest.mark.usefixtures("toy")
def test_every_kind_of_row_runs_at_toy_size() -> None:
    nodes = TOY.snapshots * TOY.steps * TOY.units
    outcomes = [
        *rows.size_and_time(nodes, gib=1, seconds=10),
        *rows.quality_on_lstm(rivals=("pca",)),
        *rows.quality_on_bifurcation(rivals=("pca",)),
        *rows.live(12),
        *rows.determinism(),
    ]
    assert len(outcomes) == 2 + 1 + 2 + 5 + 1
    assert all(isinstance(outcome.met, bool) for outcome in outcomes)
    assert outcomes[0].value == "0.00 GiB"
    assert outcomes[-1].met


@pytest.mark.usefixtures("toy")
def test_what_cannot_be_measured_is_neither_met_nor_missed() -> None:
    [outcome] = rows.against_m_phate(10, 30)
    assert outcome.met is None
    assert outcome.value == "not measured (m_phate: not installed)"


def test_a_measurement_is_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PICTURES", tmp_path)
    trace = tmp_path / "trace.npy"
    np.save(trace, np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32))
    monkeypatch.chdir(ROOT)
    run = measure.measure("toy", "pca", trace, nodes=60, options={"n_components": 2})
    assert run.failure is None
    assert np.load(tmp_path / "toy.npy").shape == (3, 4, 5, 2)
    assert run.wall_s is not None
    assert run.cpu_s is not None
    assert run.peak_bytes is not None
    assert run.peak_bytes > 2**24
    broken = measure.measure("broken", "pca", trace, nodes=60, options={"n_components": "many"})
    assert broken.picture is None
    assert "many" in str(broken.failure)
    monkeypatch.setenv("HIDDENSCOPE_ORACLE_PYTHON", str(tmp_path / "nowhere"))
    absent = measure.measure("absent", "m_phate", trace, nodes=60, options={})
    assert absent.failure == "m-phate is not installed; make oracle installs it"


def test_what_a_method_measured_of_itself_comes_along() -> None:
    blank = measure.Measurement("x", "live", 10, {})
    said = 'some chatter\n{"wall_s": 1, "cpu_s": 2, "peak_bytes": 3, "series": {"cpu_s": [0.5]}}\n'
    run = measure.read_measurement(blank, said, Path("x.npy"))
    assert (run.wall_s, run.cpu_s, run.peak_bytes, run.picture) == (1, 2, 3, "x.npy")
    assert run.series == {"cpu_s": [0.5]}


def test_growth_is_the_slope_on_logarithmic_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(nodes: int) -> tuple[measure.Measurement, int]:
        return measure.Measurement("x", "mmphate", nodes, {}, 1.0, 1e-6 * nodes**1.5, 1), nodes

    monkeypatch.setattr(rows, "_lstm_fit", fit)
    [outcome] = rows.growth((1000, 10_000, 100_000))
    assert outcome.numbers["slope"] == pytest.approx(1.5)
    assert outcome.met is False


def test_results_are_a_table_a_file_and_a_plot(tmp_path: Path) -> None:
    run = measure.Measurement("ours", "mmphate", 1000, {"n_components": 3}, 1.0, 2.0, 2**30, "somewhere.npy")
    outcomes = [
        rows.Outcome("speed", "2x", ">= 3x", False, (run,), {"ratio": float("nan")}),
        rows.Outcome("size", "not measured (gone)", "<= 1 GiB", None),
    ]
    where = measure.machine()
    assert where["packages"]["hiddenscope"]
    lines = report.table(outcomes, where).splitlines()
    assert lines[-2:] == ["| speed | 2x | >= 3x | **no** |", "| size | not measured (gone) | <= 1 GiB | not measured |"]
    written = report.write(outcomes, where, name="toy", into=tmp_path)
    results = json.loads(written.read_text())
    assert results["rows"][0]["numbers"] == {"ratio": None}
    assert results["rows"][0]["measurements"][0]["cpu_s"] == 2.0
    assert "somewhere.npy" not in written.read_text()
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- results -->\nold\n<!-- end of results -->\nThe end.\n")
    report.document(results, page)
    assert page.read_text().startswith("# Title\n<!-- results -->\n")
    assert "| speed | 2x | >= 3x | **no** |\n| size |" in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("<!-- end of results -->\nThe end.\n")
    plotted = report.plot(results, tmp_path / "plot.png")
    assert plotted is not None
    assert plotted.read_bytes().startswith(b"\x89PNG")
    assert report.plot({"rows": []}, tmp_path / "nothing.png") is None


def test_a_live_training_is_plotted_epoch_by_epoch(tmp_path: Path) -> None:
    series = {"cpu_s": [0.1, 0.2, 0.2], "moved": [0.1, 0.05, 0.04], "moved_most": [0.2, 0.25, 0.2], "start": [5]}
    run = measure.Measurement("live", "live", 1000, {}, 1.0, 2.0, 2**30, series=series)
    results = {"rows": [{"measurements": [run.as_json()]}]}
    plotted = report.plot_live(results, tmp_path / "live.png")
    assert plotted is not None
    assert plotted.read_bytes().startswith(b"\x89PNG")
    assert report.plot_live({"rows": []}, tmp_path / "nothing.png") is None


def test_an_unknown_row_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "everything"])
    assert "size-860k" in capsys.readouterr().err
