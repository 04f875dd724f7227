"""Sweeps over strength, fraction and perturbation, and the method that they recommend for a model."""

from xai_assert.sweep.choice import Choice, choose
from xai_assert.sweep.gradient_noise import gradient_noise
from xai_assert.sweep.plan import PARTS, Plan, plan_sweep
from xai_assert.sweep.run import document, measure

__all__ = ["PARTS", "Choice", "Plan", "choose", "document", "gradient_noise", "measure", "plan_sweep"]
