"""A scope on the hidden states of recurrent networks while they train.

Importing this package loads nothing heavy: each name below is fetched from its room when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hiddenscope._version import __version__

if TYPE_CHECKING:
    from hiddenscope.analyses.ablation import ablate_steps
    from hiddenscope.analyses.activations import activation_thresholds, active_periods
    from hiddenscope.analyses.analyze import analyze
    from hiddenscope.analyses.association import associate, associate_with_metrics
    from hiddenscope.analyses.bootstrap import bootstrap_over_samples
    from hiddenscope.analyses.clusters import cluster_units
    from hiddenscope.analyses.cocluster import co_cluster
    from hiddenscope.analyses.encoder_decoder import attractor, steering
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.analyses.excitation import excitation
    from hiddenscope.analyses.expected_response import expected_response, run_responses, salient_units, salient_words
    from hiddenscope.analyses.flow import epoch_change, flow_alignment, flow_expansion
    from hiddenscope.analyses.glyphs import sentence_glyphs
    from hiddenscope.analyses.information import label_information
    from hiddenscope.analyses.matching import match_units
    from hiddenscope.analyses.models import ModelAccess, recurrent_module
    from hiddenscope.analyses.patterns import cluster_patterns
    from hiddenscope.analyses.perturbation import perturbation_curves
    from hiddenscope.analyses.phases import find_phases
    from hiddenscope.analyses.probes import probe_accuracy
    from hiddenscope.analyses.relevance import relevance
    from hiddenscope.analyses.removal import model_score, rank_units, removal_curves, unit_importance
    from hiddenscope.analyses.response_study import remove_units
    from hiddenscope.analyses.responses import drive_data, drive_one, drive_tokens, unit_responses
    from hiddenscope.analyses.run_relevance import run_relevance
    from hiddenscope.analyses.search import StateIndex
    from hiddenscope.analyses.segmentation import segment
    from hiddenscope.analyses.sentences import sentence_states
    from hiddenscope.analyses.separability import separability, training_phase
    from hiddenscope.analyses.silencing import silence_clusters
    from hiddenscope.analyses.windows import windows_at_peaks
    from hiddenscope.callbacks.monitor import HiddenStateMonitor
    from hiddenscope.callbacks.recording import record
    from hiddenscope.dashboard import plot as plot
    from hiddenscope.embeddings.baselines import embed
    from hiddenscope.embeddings.fidelity import (
        distance_rank_correlation,
        neighborhood_preservation,
        trustworthiness,
    )
    from hiddenscope.embeddings.graph import multislice_graph
    from hiddenscope.embeddings.kernel import multislice_kernel
    from hiddenscope.embeddings.mmphate import MMPHATE
    from hiddenscope.embeddings.pod import POD
    from hiddenscope.errors import (
        HiddenscopeError,
        MissingExtraError,
        RecordingError,
        RecordingWarning,
        RunFormatError,
        RunLockedError,
        RunNotFoundError,
    )
    from hiddenscope.importing import import_trace
    from hiddenscope.run import Run, find_runs, open_run
    from hiddenscope.trace import as_embedding, as_trace

_HOMES = {
    "HiddenStateMonitor": "hiddenscope.callbacks.monitor",
    "HiddenscopeError": "hiddenscope.errors",
    "MMPHATE": "hiddenscope.embeddings.mmphate",
    "MissingExtraError": "hiddenscope.errors",
    "ModelAccess": "hiddenscope.analyses.models",
    "POD": "hiddenscope.embeddings.pod",
    "RecordingError": "hiddenscope.errors",
    "RecordingWarning": "hiddenscope.errors",
    "Run": "hiddenscope.run",
    "RunFormatError": "hiddenscope.errors",
    "RunLockedError": "hiddenscope.errors",
    "RunNotFoundError": "hiddenscope.errors",
    "StateIndex": "hiddenscope.analyses.search",
    "ablate_steps": "hiddenscope.analyses.ablation",
    "activation_thresholds": "hiddenscope.analyses.activations",
    "active_periods": "hiddenscope.analyses.activations",
    "analyze": "hiddenscope.analyses.analyze",
    "as_embedding": "hiddenscope.trace",
    "as_trace": "hiddenscope.trace",
    "associate": "hiddenscope.analyses.association",
    "associate_with_metrics": "hiddenscope.analyses.association",
    "attractor": "hiddenscope.analyses.encoder_decoder",
    "bootstrap_over_samples": "hiddenscope.analyses.bootstrap",
    "cluster_patterns": "hiddenscope.analyses.patterns",
    "cluster_units": "hiddenscope.analyses.clusters",
    "co_cluster": "hiddenscope.analyses.cocluster",
    "distance_rank_correlation": "hiddenscope.embeddings.fidelity",
    "drive_data": "hiddenscope.analyses.responses",
    "drive_one": "hiddenscope.analyses.responses",
    "drive_tokens": "hiddenscope.analyses.responses",
    "embed": "hiddenscope.embeddings.baselines",
    "epoch_change": "hiddenscope.analyses.flow",
    "excitation": "hiddenscope.analyses.excitation",
    "expected_response": "hiddenscope.analyses.expected_response",
    "find_phases": "hiddenscope.analyses.phases",
    "find_runs": "hiddenscope.run",
    "flow_alignment": "hiddenscope.analyses.flow",
    "flow_expansion": "hiddenscope.analyses.flow",
    "import_trace": "hiddenscope.importing",
    "inter_step_entropy": "hiddenscope.analyses.entropy",
    "intra_step_entropy": "hiddenscope.analyses.entropy",
    "label_information": "hiddenscope.analyses.information",
    "match_units": "hiddenscope.analyses.matching",
    "model_score": "hiddenscope.analyses.removal",
    "multislice_graph": "hiddenscope.embeddings.graph",
    "multislice_kernel": "hiddenscope.embeddings.kernel",
    "neighborhood_preservation": "hiddenscope.embeddings.fidelity",
    "open_run": "hiddenscope.run",
    "perturbation_curves": "hiddenscope.analyses.perturbation",
    "plot": "hiddenscope.dashboard",
    "probe_accuracy": "hiddenscope.analyses.probes",
    "rank_units": "hiddenscope.analyses.removal",
    "record": "hiddenscope.callbacks.recording",
    "recurrent_module": "hiddenscope.analyses.models",
    "relevance": "hiddenscope.analyses.relevance",
    "removal_curves": "hiddenscope.analyses.removal",
    "remove_units": "hiddenscope.analyses.response_study",
    "run_relevance": "hiddenscope.analyses.run_relevance",
    "run_responses": "hiddenscope.analyses.expected_response",
    "salient_units": "hiddenscope.analyses.expected_response",
    "salient_words": "hiddenscope.analyses.expected_response",
    "segment": "hiddenscope.analyses.segmentation",
    "sentence_glyphs": "hiddenscope.analyses.glyphs",
    "sentence_states": "hiddenscope.analyses.sentences",
    "separability": "hiddenscope.analyses.separability",
    "silence_clusters": "hiddenscope.analyses.silencing",
    "steering": "hiddenscope.analyses.encoder_decoder",
    "training_phase": "hiddenscope.analyses.separability",
    "trustworthiness": "hiddenscope.embeddings.fidelity",
    "unit_importance": "hiddenscope.analyses.removal",
    "unit_responses": "hiddenscope.analyses.responses",
    "windows_at_peaks": "hiddenscope.analyses.windows",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hiddenscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """After ``%load_ext hiddenscope``, a notebook shows embeddings as small pictures."""
    importlib.import_module("hiddenscope.dashboard.notebook").display_embeddings(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
