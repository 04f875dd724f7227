"""Is what the heatmaps call relevant relevant to the model? Models x methods x perturbations.

Models and images come from --xai-model and --xai-data, thresholds from --xai-gates (ours: gates.toml beside this file).
"""

from __future__ import annotations

import xai_assert as xa
from xai_assert.testing.gates import GateCheck


@xa.parametrize_with_gates()
def test_fidelity(gate: GateCheck) -> None:
    gate.check()
