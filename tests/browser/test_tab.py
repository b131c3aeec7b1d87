"""The tab HIDDENSCOPE in a real TensorBoard and a real browser."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hiddenscope.dashboard.command import listen
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.store import SnapshotWriter

pytestmark = pytest.mark.browser

STEPS, UNITS, SAMPLES = 6, 5, 8
COUNT = """([id, k]) => {
  const graph = document.querySelector('#' + id + ' .js-plotly-plot');
  return graph && graph._fullData && graph._fullData[k] ? graph._fullData[k].x.length : 0;
}"""


def record(writer, epoch):
    states = np.random.default_rng(int(epoch)).normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
    writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1.0 / (epoch + 1)}))


def test_the_tab_shows_a_run_as_it_grows_in_the_page_of_tensorboard(page, tmp_path):
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(SAMPLES),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
    )
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--host", "127.0.0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", description) as writer:
        record(writer, 0)
        record(writer, 1)
        server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stderr is not None
            assert any("http://" in line for line in server.stderr), "TensorBoard did not start"
            page.goto(f"http://127.0.0.1:{port}/data/plugin/hiddenscope/index.html")
            page.wait_for_function(f"() => ({COUNT})(['curves', 0]) === 2")
            page.wait_for_function(f"() => ({COUNT})(['picture', 0]) === {2 * STEPS * UNITS}")
            record(writer, 2)
            page.wait_for_function(f"() => ({COUNT})(['curves', 0]) === 3")
            page.wait_for_function(f"() => ({COUNT})(['picture', 0]) === {3 * STEPS * UNITS}")
            page.keyboard.press("ArrowLeft")
            page.wait_for_function("() => document.getElementById('epoch-label').textContent === 'epoch 1'")
            assert page.locator("#curve-cursor").is_visible()
            assert page.input_value("#run") == "version_0"
        finally:
            page.goto("about:blank")  # it would miss the server
            server.terminate()
            server.wait(timeout=30)
            assert server.stderr is not None
            server.stderr.close()
