"""One measurement, in a process of its own: load a trace, embed it, say what that took.

Runs in two environments (ours, and m-phate's own), so at the top it imports nothing but numpy. Usage:
``python benchmarks/child.py METHOD TRACE OPTIONS_AS_JSON PICTURE``; the last line printed is JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def mmphate(trace, options):  # type: ignore[no-untyped-def]
    """Ours."""
    from hiddenscope.embeddings.mmphate import MMPHATE

    estimator = MMPHATE(**options)
    # Compiled stages are compiled, or their cache is read, before the clock starts.
    MMPHATE(**{**options, "n_landmark": 20}).fit(trace[:3, :3])

    def embed():  # type: ignore[no-untyped-def]
        return estimator.fit_transform(trace)

    return embed


def live(trace, options):  # type: ignore[no-untyped-def]
    """Ours, one epoch at a time after a start; measures each epoch."""
    from hiddenscope.embeddings.fidelity import neighborhood_preservation
    from hiddenscope.embeddings.mmphate import MMPHATE

    start = options.pop("start")
    MMPHATE(**{**options, "n_landmark": 20}).fit(trace[:4, :8]).partial_fit(trace[4:5, :8]).transform(trace[:1, :8])

    def embed():  # type: ignore[no-untyped-def]
        estimator = MMPHATE(**options).fit(trace[:start])
        series = {"cpu_s": [], "moved": [], "moved_most": [], "placing_s": [], "quality": [], "start": [start]}
        for epoch in range(start, len(trace)):
            if (epoch - start) % max(1, (len(trace) - start) // 10) == 0:
                estimator.transform(trace[epoch : epoch + 1])  # what every placing needs is prepared once
                before = seconds_used()
                estimator.transform(trace[epoch : epoch + 1])
                series["placing_s"].append(seconds_used() - before)
            before = seconds_used()
            estimator.partial_fit(trace[epoch : epoch + 1])
            series["cpu_s"].append(seconds_used() - before)
            series["moved"].append(estimator.live_.report.moved)
            series["moved_most"].append(estimator.live_.report.moved_most)
        anew = MMPHATE(**options).fit_transform(trace)
        kept = [
            neighborhood_preservation(trace, picture, 10, intra_k=2).inter for picture in (estimator.embedding_, anew)
        ]
        series["quality"].append(kept[0] / kept[1])
        return estimator.embedding_, series

    return embed


def m_phate(trace, options):  # type: ignore[no-untyped-def]
    """M-PHATE 0.1.6, slices being the pairs of epoch and step."""
    import m_phate as reference

    def embed():  # type: ignore[no-untyped-def]
        operator = reference.M_PHATE(n_jobs=1, verbose=0, random_state=0, **options)
        return operator.fit_transform(trace.reshape(-1, *trace.shape[2:]).astype(float))

    return embed


def umap(trace, options):  # type: ignore[no-untyped-def]
    """UMAP on the z-scored nodes."""
    from umap import UMAP

    rows = z_scored(trace)
    UMAP(n_jobs=1, random_state=0, n_epochs=2, **options).fit(rows[:4500])  # compiles what larger inputs use
    return lambda: UMAP(n_jobs=1, random_state=0, **options).fit_transform(rows)


def tsne(trace, options):  # type: ignore[no-untyped-def]
    """openTSNE on the z-scored nodes; Barnes-Hut, the only one of its methods for 3 dimensions."""
    from openTSNE import TSNE

    rows = z_scored(trace)
    return lambda: np.asarray(TSNE(n_jobs=1, random_state=0, negative_gradient_method="bh", **options).fit(rows))


def pca(trace, options):  # type: ignore[no-untyped-def]
    """Principal components of the values themselves, as in the published table."""
    from sklearn.decomposition import PCA

    return lambda: PCA(random_state=0, **options).fit_transform(trace.reshape(-1, trace.shape[-1]))


METHODS = {"mmphate": mmphate, "live": live, "m_phate": m_phate, "umap": umap, "tsne": tsne, "pca": pca}


def z_scored(trace):  # type: ignore[no-untyped-def]
    """Nodes normalized over the samples, as M-PHATE does: shape (node, sample), float32."""
    deviation = trace.std(axis=-1, keepdims=True)
    nodes = (trace - trace.mean(axis=-1, keepdims=True)) / np.where(deviation == 0, 1, deviation)
    return nodes.reshape(-1, trace.shape[-1]).astype(np.float32)


def seconds_used():  # type: ignore[no-untyped-def]
    """User and system seconds of this process and of those it waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_bytes():  # type: ignore[no-untyped-def]
    """The most memory this process ever held, its libraries and the trace included.

    On Linux from /proc: what getrusage tells includes what the process that started this one held at that time.
    """
    status = Path("/proc/self/status")
    if status.exists():
        [line] = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Embed once, and print wall and processor seconds and peak memory."""
    method, trace_path, options, picture_path = sys.argv[1:]
    trace = np.load(trace_path)
    embed = METHODS[method](trace, json.loads(options))
    before = peak_bytes()
    wall, cpu = time.perf_counter(), seconds_used()
    made = embed()
    wall, cpu = time.perf_counter() - wall, seconds_used() - cpu
    picture, series = made if isinstance(made, tuple) else (made, None)
    np.save(Path(picture_path), np.asarray(picture, np.float32).reshape(*trace.shape[:3], -1))
    taken = {"wall_s": wall, "cpu_s": cpu, "peak_bytes": peak_bytes(), "peak_before_bytes": before, "series": series}
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
