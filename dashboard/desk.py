"""What a viewer asks for and the worker computes then: other methods' pictures, and two runs in one picture.

Each is computed in a process of its own, so that the pictures of a live training never wait for it:
``python -m hiddenscope.dashboard.desk REQUEST FILE`` leaves the result in a file for the worker, who stores it.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hiddenscope.dashboard.picture import measured, most_active_class, named, note_of, thinned
from hiddenscope.run import Run, open_run

METHODS = {
    "pca": "PCA",
    "phate": "PHATE",
    "mphate": "M-PHATE",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "isomap": "Isomap",
    "lle": "LLE",
}
"""The methods that MM-PHATE can be compared with, by the name that `hiddenscope.embed` knows."""
LIMITS = {"pca": 200_000, "mphate": 200_000, "isomap": 3_000, "lle": 4_000}
"""Nodes that a method gets; the others get `LIMIT`. Steps and then epochs are thinned down to it."""
LIMIT = 10_000
JOINT = "joint"
MATCHINGS = ("auto", "number", "response")
"""How the units of two runs in one picture can be matched."""
PATIENCE = 900.0
"""Seconds after which a computation is given up."""
_LONGEST = 5_000


@dataclass(frozen=True)
class Request:
    """One wish.

    Attributes:
        run: path of the run.
        layer: the layer.
        method: a key of `METHODS`, or `JOINT`.
        other: path of the second run of a joint picture.
        matching: one of `MATCHINGS`: how the units of a joint picture are matched.
    """

    run: str
    layer: str
    method: str
    other: str = ""
    matching: str = "auto"

    @property
    def name(self) -> str:
        """As it is called in the journal: two runs that cannot be joined say nothing of two others."""
        name = f"{self.layer}/{self.method}"
        return f"{name} {self.matching} {self.other}" if self.method == JOINT else name

    def parameters(self) -> dict[str, Any]:
        """What the result is stored under, beside layer and method."""
        chosen: dict[str, Any] = {"n_components": 3, "random_state": 0}
        return chosen | ({"other": self.other, "matching": self.matching} if self.other else {})

    def line(self) -> bytes:
        """As it is sent to the worker."""
        return json.dumps(asdict(self)).encode() + b"\n"


def parse(line: bytes | str) -> Request | None:
    """A request from its line; None where it is none.

    >>> parse(Request("/logs/version_0", "lstm", "pca").line()).method
    'pca'
    >>> parse(b"nonsense") is None, parse(b'{"run": 1, "layer": "", "method": "pca"}') is None
    (True, True)
    >>> parse(b'{"run": "a", "layer": "lstm", "method": "joint", "other": "b", "matching": "magic"}') is None
    True
    """
    try:
        found = json.loads(line[:_LONGEST])
        request = Request(**found)
    except (ValueError, TypeError):
        return None
    if not all(isinstance(value, str) for value in asdict(request).values()) or request.matching not in MATCHINGS:
        return None
    known = request.method in METHODS or (request.method == JOINT and request.other)
    return request if known else None


def compute(request: Request) -> xr.Dataset:
    """What was asked for, as `Painter.paint` makes its pictures.

    Raises:
        ValueError: the method cannot be applied, or the two runs cannot be shown in one picture.
        MissingExtraError: the method's package is not installed.
    """
    if request.method == JOINT:
        from hiddenscope.dashboard.joint import joint_picture

        return joint_picture(open_run(request.run), open_run(request.other), request.layer, request.matching)
    return other_picture(open_run(request.run), request.layer, request.method)


def other_picture(run: Run, layer: str, method: str, *, limit: int | None = None) -> xr.Dataset:
    """The picture of a layer by another method than MM-PHATE.

    Args:
        run: pinned to the commit that is wanted.
        layer: one of its layers.
        method: a key of `METHODS`.
        limit: the most nodes to embed; by default what the method does in about a minute.

    Returns:
        The variables and attributes of `Painter.paint`.
    """
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.baselines import embed

    began = time.time()
    described = run.description.layer(layer)
    epochs = run.epochs
    sizes = {"epoch": len(epochs), "step": len(described.steps), "unit": len(described.units)}
    stride, chosen = thinned(sizes, limit or LIMITS.get(method, LIMIT))
    trace = run.trace(layer, epochs=epochs[chosen], steps=described.steps[stride])
    embedding = named(embed(trace, method=method, n_components=3, random_state=0))  # type: ignore[arg-type]
    kept = {"step": embedding.sizes["step"], "epoch": embedding.sizes["epoch"]}
    return xr.Dataset(
        {
            "embedding": embedding,
            "intra_step_entropy": named(intra_step_entropy(embedding)),
            "inter_step_entropy": named(inter_step_entropy(embedding)),
            "most_active_class": most_active_class(trace),
        },
        attrs={
            "method": method,
            "title": METHODS[method],
            "parameters": Request("", "", method).parameters(),
            "covers_epoch": float(epochs[-1]),
            "epoch_count": len(epochs),
            "made_from": run.fingerprint(layer),
            "computed_at": time.time(),
            "seconds": time.time() - began,
            "note": note_of(sizes, kept),
            **measured(trace, embedding),
        },
    )


class Desk:
    """Takes requests, and has them computed one at a time in processes of their own."""

    def __init__(self) -> None:
        self._asked: dict[Request, None] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._current: Request | None = None
        self._began = 0.0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def ask(self, request: Request) -> None:
        """Remember a request; asking again changes nothing. Any thread may ask."""
        with self._lock:
            if request != self._current and len(self._asked) < 32:
                self._asked[request] = None

    def waiting(self) -> Request | None:
        """Take the next request, if nothing is being computed."""
        with self._lock:
            if self._process is not None or not self._asked:
                return None
            request = next(iter(self._asked))
            del self._asked[request]
            return request

    def begin(self, request: Request) -> None:
        """Have a request computed."""
        command = [sys.executable, "-m", __name__, request.line().decode(), str(self._file)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._current, self._began = request, time.monotonic()

    @property
    def current(self) -> Request | None:
        """What is being computed."""
        return self._current

    def finished(self) -> tuple[Request, xr.Dataset | str] | None:
        """A request that is done, with its result or with what went wrong; None while there is none."""
        if self._process is None or self._current is None:
            return None
        late = time.monotonic() - self._began > PATIENCE
        if self._process.poll() is None and not late:
            return None
        request, code = self._current, self._end()
        if late:
            return request, f"it was given up after {PATIENCE / 60:.0f} minutes"
        try:
            answer: xr.Dataset | str = pickle.loads(self._file.read_bytes())  # from our own process, not from a run
        except (OSError, EOFError, pickle.UnpicklingError):
            answer = f"its process ended with code {code} and without a word; perhaps it ran out of memory"
        self._file.unlink(missing_ok=True)
        return request, answer

    def close(self) -> None:
        """End what is being computed."""
        self._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def _file(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="hiddenscope-")
        return Path(self._folder.name) / "answer"

    def _end(self) -> int:
        process, self._process, self._current = self._process, None, None
        if process is None:
            return 0
        if process.poll() is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        return process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Compute one request for the worker; ends when the worker does."""
    from hiddenscope.dashboard.studio import one_line

    line, file = sys.argv[1:] if argv is None else argv
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    request = parse(line)
    try:
        answer: xr.Dataset | str = "this is not a request" if request is None else compute(request)
    except Exception as error:
        answer = one_line(error)
    draft = Path(f"{file}.draft")
    draft.write_bytes(pickle.dumps(answer.load() if isinstance(answer, xr.Dataset) else answer))
    os.replace(draft, file)
    return 0


def _end_with_the_worker() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
