"""Figures: data in, ``plotly.graph_objects.Figure`` out. They read no files and know no page."""

from hiddenscope.dashboard.figures.curves import curves
from hiddenscope.dashboard.figures.embedding import embedding
from hiddenscope.dashboard.figures.entropy import entropy_map, inter_entropy, intra_entropy
from hiddenscope.dashboard.figures.metrics import metrics

__all__ = ["curves", "embedding", "entropy_map", "inter_entropy", "intra_entropy", "metrics"]
