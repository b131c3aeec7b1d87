"""The lock of a writer dies with its process, and only then."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hiddenscope import open_run
from hiddenscope.errors import RunLockedError
from hiddenscope.locks import WriterLock, is_held, written_here
from hiddenscope.store import SnapshotWriter
from store_examples import assert_holds, description, snapshot

HOLD = """
import sys
from pathlib import Path
from hiddenscope.locks import WriterLock
lock = WriterLock(Path(sys.argv[1]), what="the run")
print("held", flush=True)
sys.stdin.readline()
"""

FORK = """
import os, sys, time
from pathlib import Path
from hiddenscope.locks import WriterLock
lock = WriterLock(Path(sys.argv[1]), what="the run")
if os.fork() == 0:
    print(os.getpid(), flush=True)  # after the fork's clean-up, which is what is tested
    os.close(1)
    time.sleep(60)
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""


def test_a_lock_is_held_until_released(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert not is_held(path)
    with WriterLock(path, what="the run") as lock:
        assert is_held(path)
        with pytest.raises(RunLockedError, match=rf"the run already has a writer \(process {os.getpid()} on "):
            WriterLock(path, what="the run")
        assert is_held(path)
    assert not is_held(path)
    lock.release()
    assert written_here(path)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(path)
        with pytest.raises(RunLockedError, match=f"process {process.pid} on"):
            WriterLock(path, what="the run")
        process.kill()
        process.wait()
        assert not is_held(path)
    WriterLock(path, what="the run").release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_worker_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with subprocess.Popen(
        [sys.executable, "-c", FORK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert is_held(path)  # the child let go of its copy without letting go of the parent's lock
            process.kill()
            process.wait()
            os.kill(child, 0)  # the child is still there
            assert not is_held(path)
        finally:
            os.kill(child, 9)


def test_asking_who_writes_never_stops_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    WriterLock(path, what="the run").release()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            is_held(path)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(200):
            WriterLock(path, what="the run").release()
    finally:
        done.set()
        for asker in askers:
            asker.join()


def test_taking_a_lock_again_never_leaves_it_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.lock"
    WriterLock(path, what="the run").release()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for call in ("lseek", "write", "ftruncate"):  # whichever of them is the last that a killed process reached
        with monkeypatch.context() as patch:
            patch.setattr(f"hiddenscope.locks.os.{call}", killed)
            with pytest.raises(KeyboardInterrupt):
                WriterLock(path, what="the run")
        assert written_here(path)


def test_a_file_system_without_locks_is_warned_about_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, *, exclusive: bool) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("hiddenscope.locks._lock", refuse)
    location = tmp_path / "hiddenscope"
    with pytest.warns(UserWarning, match=r"has no locks \(No locks available\); a second writer will be noticed only"):
        first = SnapshotWriter.open(location, description())
    first.append(snapshot(0))
    assert is_held(tmp_path / "hiddenscope" / "snapshots.lock") is None
    assert open_run(tmp_path).status == "training"
    with pytest.warns(UserWarning, match="has no locks"):
        second = SnapshotWriter.open(location, description(), resume_after=0)
    second.append(snapshot(1, seed=1))
    with pytest.raises(RunLockedError, match="was written by somebody else"):
        first.append(snapshot(1))
    second.finish()
    assert_holds(open_run(tmp_path), {0: 0, 1: 1})


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"words"', "\x00\xff"])
def test_a_lock_file_full_of_nonsense_is_only_not_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.lock"
    path.write_text(text, encoding="latin-1")
    assert not is_held(path)
    assert not written_here(path)
    WriterLock(path, what="the run").release()
    assert written_here(path)
