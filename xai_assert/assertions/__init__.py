"""assert_*: each is its metric with a bound on it."""

from xai_assert.assertions.base import assert_score, failure, settle
from xai_assert.assertions.fidelity import assert_attribution_fidelity, assert_faithfulness_estimate
from xai_assert.assertions.sanity import assert_completeness, assert_input_shift, assert_randomization_sensitivity
from xai_assert.assertions.stability import assert_infidelity, assert_max_sensitivity

__all__ = [
    "assert_attribution_fidelity",
    "assert_completeness",
    "assert_faithfulness_estimate",
    "assert_infidelity",
    "assert_input_shift",
    "assert_max_sensitivity",
    "assert_randomization_sensitivity",
    "assert_score",
    "failure",
    "settle",
]
