"""The public metrics: one function a metric, each a thin call of `Evaluation`. Importing this names them for gates."""

from xai_assert.scores import named  # noqa: F401  (it registers)
from xai_assert.scores.af_curve import FidelityCurve, fidelity_curve
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.curves import deletion_auc, insertion_auc, road, srg, sufficiency
from xai_assert.scores.fidelity import attribution_fidelity, faithfulness_estimate
from xai_assert.scores.maps import complexity, localization, rank_agreement, sparseness
from xai_assert.scores.sanity import completeness, input_shift, randomization_sensitivity
from xai_assert.scores.stability import infidelity, max_sensitivity

__all__ = [
    "FidelityCurve",
    "Subjectlike",
    "as_evaluation",
    "attribution_fidelity",
    "completeness",
    "complexity",
    "deletion_auc",
    "faithfulness_estimate",
    "fidelity_curve",
    "infidelity",
    "input_shift",
    "insertion_auc",
    "localization",
    "max_sensitivity",
    "randomization_sensitivity",
    "rank_agreement",
    "road",
    "sparseness",
    "srg",
    "sufficiency",
]
