"""The demo as a user starts it: a process of its own, that ends by itself and leaves nothing behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import hiddenscope as hs
from hiddenscope.cli import main
from hiddenscope.experiments import snapshot

DEADLINE = 150.0


def command(logdir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "hiddenscope", "demo", "--data", "digits", "--logdir", str(logdir), *more]


def environment() -> dict[str, str]:
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"PYTHONUNBUFFERED": "1"}


def processes_about(folder: Path) -> list[psutil.Process]:
    """Every living process that was started for this folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def wait_until(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not happens():
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s in vain for: {what}"
        time.sleep(0.1)


@contextmanager
def nothing_left_behind(folder: Path) -> Iterator[None]:
    try:
        yield
        wait_until(lambda: not processes_about(folder), "the demo's processes to end")
    finally:
        for process in processes_about(folder):
            process.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_the_demo_trains_shows_and_ends_by_itself(tmp_path: Path) -> None:
    logdir = tmp_path / "logs"
    with nothing_left_behind(tmp_path):
        demo = subprocess.Popen(
            command(logdir, "--epochs", "2", "--exit"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert demo.stdout is not None
        first = demo.stdout.readline()
        address = re.fullmatch(r"Live page: (http://127\.0\.0\.1:\d+)\n", first)
        assert address is not None, first
        wait_until(lambda: answers(address[1]) or demo.poll() is not None, "the page to answer")
        assert demo.poll() is None, "the page never answered while the demo ran"
        out, err = demo.communicate(timeout=DEADLINE)
        assert demo.returncode == 0, err
        assert not answers(address[1])
    assert "Traceback" not in err
    assert "Warning" not in err
    accuracy = re.search(r"Accuracy on the 360 held-out sequences: (0\.\d{3}) after 2 epochs, \d+ s", out)
    assert accuracy is not None, out
    assert 0.1 < float(accuracy[1]) < 0.9
    folder = Path(re.search(r"Run: (.+)", out)[1])  # type: ignore[index]
    run = hs.open_run(folder)
    assert run.epochs.tolist() == [-1, 0, 1]
    assert run.status == "finished"
    assert run.layers == ("lstm",)
    assert run.label_names == tuple("0123456789")
    assert run.trace("lstm").sizes == {"epoch": 3, "step": 8, "unit": 30, "sample": 40}
    assert float(run.metrics()["val_accuracy"].iloc[-1]) == pytest.approx(float(accuracy[1]), abs=6e-4)
    picture = Path(re.search(r"Picture: (.+)", out)[1])  # type: ignore[index]
    assert picture.parent == folder
    assert picture.stat().st_size > 10_000
    page = (folder / "hiddenscope.html").read_text(encoding="utf-8")
    assert f"accuracy {accuracy[1]}" in page
    assert page.count("Plotly.newPlot") >= 2
    assert not re.search(r'<(script|link)[^>]+(src|href)="http', page)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_in_a_terminal_it_draws_progress_and_serves_until_ctrl_c(tmp_path: Path) -> None:
    import pty
    import termios

    logdir = tmp_path / "logs"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 150))  # type: ignore[attr-defined,unused-ignore]
    with nothing_left_behind(tmp_path):
        demo = subprocess.Popen(
            command(logdir, "--epochs", "1"), stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
        )
        os.close(theirs)
        said = b""
        deadline = time.monotonic() + DEADLINE
        while b"until Ctrl-C" not in said:
            assert time.monotonic() < deadline, said.decode(errors="replace")
            if select.select([ours], [], [], 1.0)[0]:
                said += os.read(ours, 65536)
        address = re.search(rb"Serving (http://127\.0\.0\.1:\d+) until", said)
        assert address is not None
        assert answers(address[1].decode())
        assert b"Epoch 0" in said  # the bar
        demo.send_signal(signal.SIGINT)
        assert demo.wait(DEADLINE) == 0
        assert not answers(address[1].decode())
    os.close(ours)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_terminated_demo_takes_everything_with_it(tmp_path: Path) -> None:
    logdir = tmp_path / "logs"
    with nothing_left_behind(tmp_path):
        demo = subprocess.Popen(
            command(logdir, "--epochs", "10000"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        wait_until(lambda: bool(hs.find_runs(logdir)) and hs.find_runs(logdir)[0].epoch_count > 2, "three epochs")
        demo.terminate()
        assert demo.wait(DEADLINE) != 0
    assert hs.open_run(logdir).epochs.size > 2


def test_bad_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "hiddenscope demo: --epochs must be at least 1, got 0\n"
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", "--logdir", str(file)]) == 2
    assert capsys.readouterr().err == f"hiddenscope demo: --logdir takes a folder, got the file {file}\n"


def test_without_a_browser_the_picture_is_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    page = tmp_path / "page.html"
    page.write_text("<p>hello</p>")
    assert not snapshot._photograph(page, tmp_path / "image.png")
    assert not (tmp_path / "image.png").exists()
