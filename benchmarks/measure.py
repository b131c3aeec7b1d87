"""Run one measurement in a fresh process, and say on what machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

PICTURES = Path("build/benchmarks/pictures")
PACKAGES = ("hiddenscope", "numpy", "scipy", "scikit-learn", "numba", "graphtools", "phate", "umap-learn", "openTSNE")


@dataclass(frozen=True)
class Measurement:
    """What one embedding took.

    Attributes:
        name: of the measurement, as in the results file.
        method: what was run.
        nodes: of the trace.
        wall_s: seconds on the clock.
        cpu_s: user and system seconds, of all threads.
        peak_bytes: the most memory the process held, libraries and trace included; None when it failed.
        picture: where the embedding lies, or None when there is none.
        series: what a method measured of itself, as lists of numbers.
        failure: why there is none.
    """

    name: str
    method: str
    nodes: int
    options: dict[str, Any]
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None
    picture: str | None = None
    series: dict[str, list[float]] | None = None
    failure: str | None = None

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary, the picture's place left out."""
        return {key: value for key, value in asdict(self).items() if key != "picture" and value is not None}


def reference_python() -> Path | None:
    """The interpreter of the environment that `make oracle` builds around m-phate, if it is there."""
    python = Path(os.environ.get("HIDDENSCOPE_ORACLE_PYTHON", ".venv-oracle/bin/python"))
    if not python.exists():
        return None
    found = subprocess.run([python, "-c", "import m_phate"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


def measure(
    name: str, method: str, trace: Path, *, nodes: int, options: dict[str, Any], threads: int = 2, limit_s: float = 3600
) -> Measurement:
    """Embed a trace in a process of its own; a failure is a result too.

    Args:
        name: of the measurement.
        method: a key of ``benchmarks.child.METHODS``.
        trace: file with the trace.
        nodes: its number of nodes.
        options: of the method.
        threads: for our compiled stages; all linear algebra runs on one thread, as m-phate's loops do.
        limit_s: seconds after which it is given up.
    """
    python = reference_python() if method == "m_phate" else Path(sys.executable)
    blank = Measurement(name, method, nodes, options)
    if python is None:
        return _failed(blank, "m-phate is not installed; make oracle installs it")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{name}.npy"
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **single, "NUMBA_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    script = Path(__file__).with_name("child.py")
    try:
        done = subprocess.run(
            [python, script, method, trace, json.dumps(options), picture],
            capture_output=True,
            text=True,
            env=environment,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(blank, f"took more than {limit_s:.0f} s")
    if done.returncode:
        return _failed(blank, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return read_measurement(blank, done.stdout, picture)


def read_measurement(blank: Measurement, output: str, picture: Path) -> Measurement:
    """What a child said in the last line of its output."""
    taken = json.loads(output.strip().splitlines()[-1])
    return replace(
        blank,
        wall_s=taken["wall_s"],
        cpu_s=taken["cpu_s"],
        peak_bytes=taken["peak_bytes"],
        series=taken["series"],
        picture=str(picture),
    )


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _failed(blank: Measurement, why: str) -> Measurement:
    return replace(blank, failure=why)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
