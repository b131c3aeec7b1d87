"""The harness of the experiments: what is kept, what is written, and what a killed run does when it is begun again."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from hiddenscope.cli import main
from hiddenscope.experiments import command, experiment, photographs
from hiddenscope.experiments.experiment import Context, Experiment, all_experiments, carry_out
from hiddenscope.experiments.keeping import load_dataset, save_dataset

MIXED = xr.Dataset(
    {
        "numbers": (("epoch", "step"), np.arange(6.0).reshape(2, 3), {"unit": "nats"}),
        "names": ("step", ["a", "bc", "\u00e9"]),
        "flags": ("epoch", np.array([True, False])),
        "one": ((), np.float32(2.5)),
    },
    coords={"epoch": [-1, 4], "step": [0, 2, 4], "group": ("step", ["A", "B", "A"])},
    attrs={"note": "of a test", "crossings": [25.0, 33.3], "count": np.int64(3)},
)


def test_a_kept_dataset_is_read_back_with_its_dims_coordinates_types_and_attributes(tmp_path: Path) -> None:
    save_dataset(MIXED, tmp_path / "kept.npz")
    back = load_dataset(tmp_path / "kept.npz")
    xr.testing.assert_identical(back, MIXED.assign_attrs(count=3))
    assert {name: back[name].dtype for name in back.variables} == {name: MIXED[name].dtype for name in MIXED.variables}
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]
    with pytest.raises(ValueError, match="variable 'odd' holds other objects"):
        save_dataset(xr.Dataset({"odd": ("x", np.array([{}, 1], dtype=object))}), tmp_path / "odd.npz")
    with pytest.raises(ValueError, match="got PosixPath"):
        save_dataset(MIXED.assign_attrs(where=Path("here")), tmp_path / "odd.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3), st.integers(0, 2))
def test_a_cached_result_is_used_again_exactly_when_name_parameters_and_seed_agree(
    tmp_path_factory: pytest.TempPathFactory, parameters: dict[str, int], seed: int
) -> None:
    out = tmp_path_factory.mktemp("out")
    calls: list[int] = []

    def compute() -> xr.Dataset:
        calls.append(1)
        return xr.Dataset({"value": ((), float(len(calls)))})

    first = Context(out, seed=seed).cached("thing", parameters, compute)
    again = Context(out, seed=seed).cached("thing", dict(reversed(parameters.items())), compute)
    xr.testing.assert_identical(first, again)
    assert len(calls) == 1
    Context(out, seed=seed + 1).cached("thing", parameters, compute)
    Context(out, seed=seed).cached("thing", {**parameters, "d": 0}, compute)
    Context(out, seed=seed).cached("other", parameters, compute)
    Context(out, seed=seed, fresh=True).cached("thing", parameters, compute)
    assert len(calls) == 5


def test_another_version_of_the_package_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Context(tmp_path).cached("thing", {}, lambda: xr.Dataset({"value": 1}))
    monkeypatch.setattr(experiment, "__version__", "999")
    assert int(Context(tmp_path).cached("thing", {}, lambda: xr.Dataset({"value": 2}))["value"]) == 2


PROGRAM = """
import os, sys, time
from pathlib import Path
import xarray as xr
from hiddenscope.experiments.experiment import Context, Experiment, carry_out

def run(context):
    for part in context.progress(range(4), "parts"):
        def compute(part=part):
            with open(sys.argv[2], "a") as log:
                log.write(f"{part}\\n")
            if part == 2 and len(sys.argv) > 3:
                time.sleep(600)
            return xr.Dataset({"value": part * 10})
        context.number(f"part {part}", int(context.cached("part", {"part": part}, compute)["value"]))

carry_out(Experiment("parts", "four parts", run), Context(Path(sys.argv[1])), pictures=False)
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    out = tmp_path / "out"
    killed = subprocess.Popen([sys.executable, "-c", PROGRAM, out, log, "stay"], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().split() == ["0", "1", "2"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (out / "summary.json").exists()
    subprocess.run([sys.executable, "-c", PROGRAM, out, log], check=True, timeout=60)
    assert log.read_text().split() == ["0", "1", "2", "2", "3"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["numbers"] == {f"part {part}": part * 10 for part in range(4)}
    assert (summary["reused"], summary["computed"]) == (["part"] * 2, ["part"] * 2)


def drawing(context: Context) -> None:
    context.table("numbers", pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, np.nan]}))
    context.figure("line", go.Figure(go.Scatter(y=[1, 2])), title="A <line>", width=300, height=200)
    context.number("best", np.float64(0.5))
    context.number("none", float("nan"))
    context.note("by hand")


def test_tables_figures_and_summary_are_written_and_need_no_network(tmp_path: Path) -> None:
    context = Context(tmp_path, arguments=argparse.Namespace(data=Path("somewhere")), quick=True, seed=3)
    carry_out(Experiment("drawing", "a line", drawing), context, pictures=False, command="as typed")
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert table["value"][0] == pytest.approx(1 / 3, abs=1e-6)
    page = (tmp_path / "line.html").read_text()
    assert "A &lt;line&gt;" in page
    assert re.findall(r'src="([^"]*)"', page) == ["plotly.min.js"]
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["numbers"] == {"best": 0.5, "none": "nan"}
    assert (summary["quick"], summary["seed"], summary["options"]) == (True, 3, {"data": "somewhere"})
    assert summary["files"] == ["line.html", "numbers.csv"]
    assert summary["versions"]["numpy"] == np.__version__
    assert summary["machine"]["cores"] >= 1
    assert (summary["notes"], summary["command"]) == (["by hand"], "as typed")


def test_without_chromium_there_is_a_note_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "BROWSERS", ("no-such-browser",))
    carry_out(Experiment("drawing", "a line", drawing), Context(tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "they need Chromium" in summary["notes"][-1]
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.skipif(not any(map(shutil.which, photographs.BROWSERS)), reason="needs Chromium")
def test_figures_become_png_files_of_the_size_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    carry_out(Experiment("drawing", "a line", drawing), Context(tmp_path))
    content = (tmp_path / "line.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (300, 200)
    assert "line.png" in json.loads((tmp_path / "summary.json").read_text())["files"]


def test_an_experiment_that_fails_says_so_in_its_summary_and_raises(tmp_path: Path) -> None:
    def fail(context: Context) -> None:
        raise ValueError("no such data")

    def interrupt(context: Context) -> None:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="no such data"):
        carry_out(Experiment("failing", "fails", fail), Context(tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    with pytest.raises(KeyboardInterrupt):
        carry_out(Experiment("interrupted", "ends", interrupt), Context(tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"


def test_the_command_lists_runs_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=2)

    listed = {"drawing": Experiment("drawing", "draws 100 % of a line", drawing, options)}
    monkeypatch.setattr(command, "all_experiments", lambda: listed)
    assert main(["experiment", "--list"]) == 0
    assert capsys.readouterr().out == "drawing  draws 100 % of a line\n"
    assert main(["experiment"]) == 2
    assert "say which one" in capsys.readouterr().err
    assert main(["experiment", "drawing", "--out", str(tmp_path / "out"), "--size", "3", "--no-png", "--quick"]) == 0
    assert "best: 0.5" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["command"] == "hiddenscope experiment drawing --quick --seed 0 --size 3"
    assert summary["options"] == {"size": 3}
    (tmp_path / "file").touch()
    assert main(["experiment", "drawing", "--out", str(tmp_path / "file")]) == 2
    assert "--out takes a folder" in capsys.readouterr().err


def test_listing_the_experiments_loads_nothing_heavy_and_names_each_once() -> None:
    program = (
        "import sys; from hiddenscope.experiments.experiment import EXPERIMENTS, all_experiments; "
        "assert len(all_experiments()) == len(EXPERIMENTS); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "pytorch_lightning", "plotly", "dash", "phate", "umap", "sklearn"}
    assert all(found.summary and not found.summary.endswith(".") for found in all_experiments().values())
