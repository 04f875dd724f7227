"""What does an explanation cost, in passes and in multiples of one forward pass? Models x methods; run with -n 0.

Bounds come from --xai-gates (metrics passes_per_image and forward_ratio); without any, the costs are reported.
"""

from __future__ import annotations

import contextlib

import xai_assert as xa
from xai_assert.latency import CHUNK
from xai_assert.testing.benchmark import AttributionBenchmark
from xai_assert.testing.gates import GateCheck

MANY = 64  # passes; beyond, one image once: it lasts long enough for a moment's noise to be averaged out
ROUNDS = 5


@xa.parametrize_with_gates(
    perturbations=["gaussian_noise"], fractions=[0.05], metrics=["passes_per_image", "forward_ratio"]
)
def test_latency(gate: GateCheck, attribution_benchmark: AttributionBenchmark) -> None:
    method = gate.param.method
    slow = sum(method.declared_passes or ()) > MANY
    images, rounds = (1, 1) if slow else (CHUNK, ROUNDS)
    with contextlib.suppress(xa.NotApplicableError):  # the gate skips it, with the reason
        attribution_benchmark(gate.evaluation, method, batch_size=images, rounds=rounds)
    gate.check()
