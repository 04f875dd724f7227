"""assert_*: each is its metric with a bound on it."""

from xai_assert.assertions.af_curve import assert_fidelity_curve
from xai_assert.assertions.base import assert_score, failure, settle
from xai_assert.assertions.curves import (
    assert_deletion_auc,
    assert_insertion_auc,
    assert_road,
    assert_srg,
    assert_sufficiency,
)
from xai_assert.assertions.fidelity import assert_attribution_fidelity, assert_faithfulness_estimate
from xai_assert.assertions.maps import assert_complexity, assert_localization, assert_rank_agreement, assert_sparseness
from xai_assert.assertions.sanity import assert_completeness, assert_input_shift, assert_randomization_sensitivity
from xai_assert.assertions.stability import assert_infidelity, assert_max_sensitivity

__all__ = [
    "assert_attribution_fidelity",
    "assert_completeness",
    "assert_complexity",
    "assert_deletion_auc",
    "assert_faithfulness_estimate",
    "assert_fidelity_curve",
    "assert_infidelity",
    "assert_input_shift",
    "assert_insertion_auc",
    "assert_localization",
    "assert_max_sensitivity",
    "assert_randomization_sensitivity",
    "assert_rank_agreement",
    "assert_road",
    "assert_score",
    "assert_sparseness",
    "assert_srg",
    "assert_sufficiency",
    "failure",
    "settle",
]
