"""Metrics: pure functions of tensors, and the scores that they give."""

from xai_assert.metrics.cell import Cell
from xai_assert.metrics.depth import DepthProtocol
from xai_assert.metrics.faithfulness import FaithfulnessCell, FaithfulnessScore
from xai_assert.metrics.fidelity import FidelityCell, FidelityScore
from xai_assert.metrics.metric import Metric
from xai_assert.metrics.score import Score

__all__ = [
    "Cell",
    "DepthProtocol",
    "FaithfulnessCell",
    "FaithfulnessScore",
    "FidelityCell",
    "FidelityScore",
    "Metric",
    "Score",
]
