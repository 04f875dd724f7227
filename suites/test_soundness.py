"""Can the numbers of this run be trusted at all? These gates hold for any model, trained or not."""

from __future__ import annotations

import xai_assert as xa
from xai_assert.testing.gates import GateCheck


@xa.parametrize_with_gates(metrics=["finite"])
def test_numbers_are_finite(gate: GateCheck) -> None:
    gate.check()


@xa.parametrize_with_gates(metrics=["passes"])
def test_nothing_is_computed_twice(gate: GateCheck) -> None:
    gate.check()


@xa.parametrize_with_gates(methods=["random"], metrics=["bias"])
def test_random_control_is_unbiased(gate: GateCheck) -> None:
    gate.check()
