"""Metrics: pure functions of tensors, and the scores that they give."""

from xai_assert.metrics.depth import DepthProtocol
from xai_assert.metrics.faithfulness import FaithfulnessScore
from xai_assert.metrics.fidelity import FidelityScore
from xai_assert.metrics.score import Score

__all__ = ["DepthProtocol", "FaithfulnessScore", "FidelityScore", "Score"]
