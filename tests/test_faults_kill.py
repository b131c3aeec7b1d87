"""SIGKILL at random moments of a recording, again and again, under the eyes of a reader: nothing committed is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = 100

DRIVER = '''
"""Forks a recorder, kills it after a random while, and resumes, until enough were killed. Touches no store itself."""
import json, os, random, signal, sys, time
import torch
from hiddenscope import open_run, record
from hiddenscope.errors import HiddenscopeError

folder, kills, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)


def states_of(epoch):
    return torch.full((3, 7, 2), 1.0 + epoch)


class Echo(torch.nn.Module):
    """A recurrent network whose states tell the epoch, so that a torn or misplaced record would show."""

    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(2, 4, batch_first=True)

    def forward(self, x):
        return self.gru(x)


def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def train():
    model, start = Echo(), None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    try:
        start = open_run(folder).epochs[-1]
    except HiddenscopeError:
        pass
    probe = torch.zeros(3, 7, 2)
    with open(log, "a") as acknowledged, record(model, probe, folder, resume_after=start, strict=True) as recorder:
        epoch = -1 if start is None else int(start) + 1
        while True:
            with torch.no_grad():
                model.gru.bias_ih_l0[8:] = epoch / 1000
            recorder.snapshot(epoch, number=epoch)
            acknowledged.write(f"{max(recorder._session.written, default=-2):g}\\n")
            acknowledged.flush()
            epoch += 1


def read():
    run, seen = None, []
    while True:
        try:
            run = open_run(folder)
        except HiddenscopeError:
            continue
        epochs = run.epochs.tolist()
        assert epochs == list(range(-1, len(epochs) - 1)), epochs
        assert len(epochs) >= len(seen), "an epoch was lost"
        seen = epochs
        if epochs:
            states = run.trace("gru", epochs=epochs[-3:])
            assert states.notnull().all()
            for epoch in states.epoch.values:
                expected = torch.tensor(0.5) * torch.tanh(torch.tensor(epoch / 1000))
                assert abs(float(states.sel(epoch=epoch)[0, 0, 0]) - float(expected)) < 1e-6, epoch
            assert run.metrics()["number"].tolist() == epochs


random.seed(0)
reader = in_child(read)
for kill in range(kills):
    before = os.path.getsize(log) if os.path.exists(log) else 0
    recorder = in_child(train)
    deadline = time.monotonic() + 30
    while kill % 4 and time.monotonic() < deadline:  # one in four may die before it has written anything
        if os.path.exists(log) and os.path.getsize(log) > before + 12:
            break
        time.sleep(0.005)
    time.sleep(random.uniform(0.0, 0.2))
    os.kill(recorder, signal.SIGKILL)
    os.waitpid(recorder, 0)
ended, _ = os.waitpid(reader, os.WNOHANG)
if not ended:
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)
print("reader failed" if ended else "reader fine")
'''


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_hundred_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    from hiddenscope import open_run

    driver, log = tmp_path / "driver.py", tmp_path / "acknowledged"
    driver.write_text(DRIVER)
    command = [sys.executable, "-W", "ignore", str(driver), str(tmp_path / "run"), str(KILLS), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "reader fine", done.stderr
    epochs = open_run(tmp_path / "run").epochs.tolist()
    committed = [float(line) for line in log.read_text().split()]
    assert epochs == list(range(-1, len(epochs) - 1)), "no epoch twice, none missing"
    assert epochs[-1] >= max(committed), "what was said to be committed is there"
    assert len(epochs) > KILLS / 2, "the kills left time to write"
