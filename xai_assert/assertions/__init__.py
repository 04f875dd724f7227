"""assert_*: each is its metric with a bound on it."""

from xai_assert.assertions.base import assert_score, failure, settle
from xai_assert.assertions.fidelity import assert_attribution_fidelity, assert_faithfulness_estimate

__all__ = ["assert_attribution_fidelity", "assert_faithfulness_estimate", "assert_score", "failure", "settle"]
