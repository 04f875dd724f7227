"""The public metrics: one function a metric, each a thin call of `Evaluation`. Importing this names them for gates."""

from xai_assert.scores import named  # noqa: F401  (it registers)
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.fidelity import attribution_fidelity, faithfulness_estimate

__all__ = ["Subjectlike", "as_evaluation", "attribution_fidelity", "faithfulness_estimate"]
