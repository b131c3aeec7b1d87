"""The one line that a recording begins with."""

from __future__ import annotations

from typing import Any

from hiddenscope.callbacks.folders import shortened
from hiddenscope.callbacks.recorder import StateRecorder
from hiddenscope.description import INPUTS, LayerDescription


def headline(recorder: StateRecorder, schedule: str, location: str, logdir: str, *, dtype: str) -> str:
    """One line: what is recorded, how much, where, and how to watch it."""
    recorded = [layer for layer in recorder.layers if layer.kind != INPUTS]
    layers = ", ".join(f"{layer.name} ({_extent(layer)})" for layer in recorded[:4])
    if len(recorded) > 4:
        layers += f" and {len(recorded) - 4} more"
    return (
        f"hiddenscope: recording {layers} on {recorder.sample_count} sequences {schedule}, "
        f"{recorder.bytes_per_epoch(dtype) / 1e6:.2g} MB each{_without(recorder)}, in {shortened(location)}; "
        f"watch with: hiddenscope dashboard {shortened(logdir)}"
    )


def _without(recorder: StateRecorder) -> str:
    """Which weights are left out, if any."""
    large = recorder.weights.left_out
    names = ", ".join(f"{name} ({megabytes:.2g} MB)" for name, megabytes in list(large.items())[:4])
    return f" without the weights of {names}{', …' if len(large) > 4 else ''}" if large else ""


def _extent(layer: LayerDescription) -> str:
    def kept(count: int, total: Any, what: str) -> str:
        return f"{count} {what}" if total in (None, count) else f"{count} of {total} {what}"

    units = kept(layer.units.size, layer.settings.get("all_units"), "units")
    return f"{units}, {kept(layer.steps.size, layer.settings.get('all_steps'), 'steps')}"
