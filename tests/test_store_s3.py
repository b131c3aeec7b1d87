"""The run store on S3: the whole contract, against a real server in another process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hiddenscope as hs
from hiddenscope.cli import main
from hiddenscope.errors import RunLockedError, RunNotFoundError
from hiddenscope.store import ResultStore, SnapshotWriter
from store_examples import assert_holds, description, snapshot
from test_store import StoreContract

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moto") is None, reason="moto is not installed; pip install 'hiddenscope[test]'"
)

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server with a bucket named ``bucket``; it ends when its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            with urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT")) as answer:
                assert answer.status == 200
            yield address
        finally:
            server.kill()


@pytest.fixture(scope="module", autouse=True)
def _environment(endpoint: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_REGION", "us-east-1")
        yield


class TestS3(StoreContract):
    @pytest.fixture
    def location(self) -> str:
        return f"s3://bucket/runs/{uuid.uuid4().hex}/hiddenscope"

    def test_a_second_writer_is_refused_until_the_first_is_done(self, location: str) -> None:
        """There are no locks on S3: whoever commits second is told then."""
        first = SnapshotWriter.open(location, description())
        first.append(snapshot(0))
        second = SnapshotWriter.open(location, description(), resume_after=0)
        second.append(snapshot(1, seed=2))
        for _ in range(2):
            with pytest.raises(RunLockedError, match="was written by somebody else since this writer opened it"):
                first.append(snapshot(1))
        with pytest.raises(RunLockedError, match="was written by somebody else"):
            first.finish()
        second.append(snapshot(2, seed=2))
        second.finish()
        run = hs.open_run(location)
        assert_holds(run, {0: 0, 1: 2, 2: 2})
        assert run.status == "finished"

    def test_the_status_follows_the_writer(self, location: str) -> None:
        """A writer that has reopened a finished run is seen with its first epoch, not before."""
        writer = SnapshotWriter.open(location, description())
        writer.append(snapshot(0))
        run = hs.open_run(location)
        assert run.status == "training"
        writer.finish("interrupted")
        assert run.status == "interrupted"
        again = SnapshotWriter.open(location, description(), resume_after=0)
        assert run.status == "interrupted"
        again.append(snapshot(1))
        assert run.status == "training"
        again.finish()
        assert run.status == "finished"

    @pytest.mark.slow
    def test_many_metrics_over_many_epochs_keep_their_places(self, location: str) -> None:
        super().test_many_metrics_over_many_epochs_keep_their_places(location)

    def test_a_run_is_found_at_its_address_and_right_above_it(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        above = location.removesuffix("/hiddenscope")
        for address in (location, above, above + "/"):
            run = hs.open_run(address)
            assert (run.path, run.name) == (location, above.rpartition("/")[2])
        (info,) = hs.find_runs(above)
        assert (info.path, info.epoch_count, info.status) == (location, 1, "finished")

    def test_a_silent_training_counts_as_killed(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = SnapshotWriter.open(location, description())
        writer.append(snapshot(0))
        run = hs.open_run(location)
        for seconds, status in ((590, "training"), (610, "killed")):
            monkeypatch.setattr("hiddenscope.reading.time.time", lambda seconds=seconds: run.updated_at + seconds)
            assert run.status == status

    def test_results_lie_beside_the_snapshots(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        run = hs.open_run(location)
        assert run.results.get("lstm", "pca") is None
        dataset = xr.Dataset({"embedding": (("epoch", "component"), np.eye(3))})
        with ResultStore.open(location, writable=True) as store:
            for scale in range(3):
                store.put("lstm", "pca", {}, dataset * scale)
            assert store.sweep(grace=0) > 0
            store.put("lstm", "pca", {}, dataset * 3)
        found = run.results.get("lstm", "pca")
        assert found is not None
        xr.testing.assert_identical(found, dataset * 3)


def test_the_commands_and_imports_take_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    hs.import_trace(trace, "s3://bucket/imported", layer="lstm")
    assert main(["info", "s3://bucket/imported"]) == 0
    assert "lstm 2×4×5" in capsys.readouterr().out  # noqa: RUF001
    assert main(["export", "s3://bucket/imported", "--to", str(tmp_path / "trace.npz")]) == 0
    with np.load(tmp_path / "trace.npz") as archive:
        np.testing.assert_array_equal(archive["states"], trace)


def test_the_server_can_be_named_without_the_environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    options = {"endpoint_url": endpoint, "access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    with SnapshotWriter.open("s3://bucket/named/hiddenscope", description(), storage_options=options) as writer:
        writer.append(snapshot(0))
    assert_holds(hs.open_run("s3://bucket/named", storage_options=options), {0: 0})


@pytest.mark.filterwarnings("ignore")
def test_trainings_are_recorded_at_an_address_one_beside_the_other(endpoint: str, tmp_path: Path) -> None:
    from training_examples import assert_same_weights, fit

    plain, _ = fit(tmp_path / "plain", epochs=2)
    for _ in range(2):
        monitor = hs.HiddenStateMonitor(logdir="s3://bucket/monitored", strict=True, max_wait=60, verbose=False)
        model, _ = fit(tmp_path, monitor, epochs=2)
        assert_same_weights(model, plain)
    for name in ("hiddenscope", "hiddenscope_2"):
        assert hs.open_run(f"s3://bucket/monitored/{name}").epochs.tolist() == [-1, 0, 1]
    with pytest.warns(hs.RecordingWarning, match="cannot be reached"):
        fit(tmp_path, hs.HiddenStateMonitor(logdir="s3://no-such-bucket/x", verbose=False), epochs=1)


def test_runs_below_a_prefix_are_found_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("logs/version_0", "logs/deep/er/version_1", "logs-of-others/version_9"):
        with SnapshotWriter.open(f"s3://bucket/below/{name}/hiddenscope", description()) as writer:
            writer.append(snapshot(0))
    found = hs.find_runs("s3://bucket/below/logs")
    assert [info.name for info in found] == ["deep/er/version_1", "version_0"]
    assert {info.status for info in found} == {"finished"}
    assert hs.open_run("s3://bucket/below/logs").path == "s3://bucket/below/logs/deep/er/version_1/hiddenscope"
    assert len(hs.find_runs("s3://bucket/below")) == 3
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert hs.find_runs("s3://bucket/below/logs") == []
    with pytest.raises(RunNotFoundError, match="pip install boto3 to look further below"):
        hs.open_run("s3://bucket/below/logs")


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(RunNotFoundError, match="no run at s3://bucket/nothing nor at s3://bucket/nothing/hiddenscope"):
        hs.open_run("s3://bucket/nothing")
    with pytest.raises(OSError, match=r"s3://nobucket/run/snapshots cannot be reached .*NoSuchBucket"):
        hs.open_run("s3://nobucket/run")
