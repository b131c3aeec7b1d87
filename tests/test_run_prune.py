"""Pruning says what it will remove, removes that, and leaves every reader of the newest commit what it had."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hiddenscope as hs
from hiddenscope.cli import main
from hiddenscope.errors import RunFormatError
from hiddenscope.listing import folder_bytes
from hiddenscope.store import ResultStore, SnapshotWriter
from store_examples import assert_holds, description, snapshot

EXPECTED = {-1: 0, 0: 0, 1: 1, 2: 1}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A run with superseded epochs and replaced results, in a log folder."""
    location = tmp_path / "version_0" / "hiddenscope"
    with SnapshotWriter.open(location, description()) as writer:
        for epoch in range(-1, 12):
            writer.append(snapshot(epoch))
    with SnapshotWriter.open(location, description(), resume_after=0) as writer:
        for epoch in (1, 2):
            writer.append(snapshot(epoch, seed=1))
    with ResultStore.open(location, writable=True) as results:
        for seed in range(4):
            results.put("lstm", "pca", {}, result(seed))
    return tmp_path


def result(seed: int) -> xr.Dataset:
    return xr.Dataset({"embedding": (("epoch", "component"), np.random.default_rng(seed).normal(size=(500, 3)))})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_consent_nothing_is_removed(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(logs)
    assert main(["prune", str(logs), "--results", "--empty"]) == 0
    told = capsys.readouterr().out
    assert "version_0: superseded epochs and former commits" in told
    assert "version_0: all results (embeddings and the like)" in told
    assert "nothing was removed; repeat with --yes to free" in told
    assert contents(logs) == before


@pytest.mark.parametrize(("answer", "removed"), [("", False), ("n", False), ("what?", False), ("y", True)])
def test_in_a_terminal_it_asks(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, removed: bool
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "input", lambda question: answer)
    before = contents(logs)
    assert main(["prune", str(logs)]) == 0
    assert (contents(logs) != before) == removed
    assert ("nothing was removed" in capsys.readouterr().out) != removed


def test_what_was_announced_is_freed_and_what_is_current_stays(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    location = logs / "version_0" / "hiddenscope"
    run = hs.open_run(logs)
    metrics, version = run.metrics(), run.version
    before = {name: folder_bytes(location / name) for name in ("snapshots", "results")}
    assert main(["prune", str(logs), "--yes"]) == 0
    announced = capsys.readouterr().out
    after = {name: folder_bytes(location / name) for name in ("snapshots", "results")}
    assert after["snapshots"] < 0.5 * before["snapshots"]
    assert after["results"] < 0.5 * before["results"]
    freed = sum(before.values()) - sum(after.values())
    assert announced.splitlines()[-1] == f"freed {freed / 1000:.0f} kB"
    run = hs.open_run(logs)
    assert run.version == version
    assert_holds(run, EXPECTED)
    assert run.metrics().equals(metrics)
    found = run.results.get("lstm", "pca")
    assert found is not None
    xr.testing.assert_identical(found, result(3))
    assert main(["prune", str(logs), "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_pruned_run_goes_on(logs: Path) -> None:
    assert main(["prune", str(logs), "--yes"]) == 0
    location = logs / "version_0" / "hiddenscope"
    with SnapshotWriter.open(location, description(), resume_after=2) as writer:
        writer.append(snapshot(3, seed=5))
    assert_holds(hs.open_run(logs), {**EXPECTED, 3: 5})
    with ResultStore.open(location, writable=True) as results:
        results.put("lstm", "pca", {}, result(9))
        found = results.get("lstm", "pca")
    assert found is not None
    xr.testing.assert_identical(found, result(9))


def test_a_reader_of_an_older_commit_is_told_and_can_move_on(logs: Path) -> None:
    location = logs / "version_0" / "hiddenscope"
    run = hs.open_run(logs)
    with SnapshotWriter.open(location, description(), resume_after=0) as writer:
        writer.append(snapshot(1, seed=7))
    assert main(["prune", str(logs), "--yes"]) == 0
    with pytest.raises(RunFormatError, match="cannot be read"):
        run.trace("lstm", epochs=2)
    assert run.refresh()
    assert_holds(run, {-1: 0, 0: 0, 1: 7})


def test_a_run_that_is_being_written_is_left_alone(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    location = logs / "version_0" / "hiddenscope"
    with SnapshotWriter.open(location, description(), resume_after=2) as writer:
        before = contents(logs)
        assert main(["prune", str(logs), "--yes", "--results", "--empty"]) == 0
        assert "version_0: left alone, it is being written" in capsys.readouterr().out
        assert contents(logs) == before
        writer.append(snapshot(3, seed=1))


def test_results_that_are_being_written_are_left_alone(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    location = logs / "version_0" / "hiddenscope"
    with ResultStore.open(location, writable=True) as results:
        assert main(["prune", str(logs), "--yes", "--results"]) == 0
        told = capsys.readouterr().out
        assert "skipped:" in told
        assert "already has a writer" in told
        planned = [line.split("  version_0")[0].strip() for line in told.splitlines() if "  version_0: " in line]
        assert told.splitlines()[-1] == f"freed {planned[0]}"  # the snapshots, not the results
        assert results.get("lstm", "pca") is not None


def test_results_go_only_when_named(logs: Path) -> None:
    assert main(["prune", str(logs), "--yes", "--results"]) == 0
    run = hs.open_run(logs)
    assert run.results.get("lstm", "pca") is None
    assert_holds(run, EXPECTED)


def test_empty_runs_go_only_when_named(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = logs / "version_1" / "hiddenscope"
    with SnapshotWriter.open(empty, description()):
        pass
    (empty.parent / "checkpoint.ckpt").touch()
    assert main(["prune", str(logs), "--yes"]) == 0
    assert "version_1: left alone, it has no epoch; --empty removes such runs" in capsys.readouterr().out
    assert empty.is_dir()
    assert main(["prune", str(logs), "--yes", "--empty"]) == 0
    assert "version_1: the whole run, which has no epoch" in capsys.readouterr().out
    assert not empty.exists()
    assert (empty.parent / "checkpoint.ckpt").exists()
    assert_holds(hs.open_run(logs), EXPECTED)


def test_what_cannot_be_read_is_left_alone(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = logs / "version_1" / "hiddenscope" / "snapshots"
    odd.mkdir(parents=True)
    (odd / "config.yaml").write_text("}{")
    (odd / "refs" / "branch.main").mkdir(parents=True)
    (odd / "refs" / "branch.main" / "ref.json").write_text("}{")
    before = contents(odd)
    assert main(["prune", str(logs), "--yes", "--empty", "--results"]) == 0
    assert "version_1: left alone, " in capsys.readouterr().out
    assert contents(odd) == before


def test_remote_runs_are_not_pruned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "s3://bucket/run"]) == 2
    assert "runs are pruned in folders, got s3://bucket/run" in capsys.readouterr().err
