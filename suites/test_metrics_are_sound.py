"""A gate for the gates: every metric of explanations must order explanations that are known to be worse and worse.

The networks are planted: one reads one object of rendered rooms, one is a sum of weighted pixels, one decides by a
watermark (where the object is a wrong explanation). Their true maps are blurred, noised, shifted, replaced by random
ones and inverted. A metric that cannot order them must say so: the `caveat` of its facts, which stands in
`xa.list_metrics()` and in the report. It is the same on every machine and needs no model of yours; a metric that you
registered yourself (entry point `xai_assert.plugins`) is judged with ours.
"""

from __future__ import annotations

import functools

import pytest

from xai_assert import planted_models, registry
from xai_assert.errors import NotApplicableError
from xai_assert.planted_models import Planted

METRICS = [name for name in registry.metrics.names() if registry.metrics.get(name).about == "explanation"]

planted = functools.cache(planted_models.planted)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", planted_models.KINDS)
def test_metric_orders_explanations_or_says_that_it_cannot(kind: str, metric: str) -> None:
    __tracebackhide__ = True
    try:
        check(planted(kind), metric)
    except NotApplicableError as error:
        pytest.skip(f"{metric} is not for this model: {error}")


def check(model: Planted, metric: str) -> None:
    """Fail if the metric neither orders the explanations of the model nor has a caveat."""
    __tracebackhide__ = True
    found = planted_models.faults(model.scores(metric))
    if found and not caveat(metric):
        raise AssertionError(
            f"{metric} does not order the explanations of {model.subject.name}: {'; '.join(found)}. "
            "Mend it, or say in the caveat of its facts (Metric.caveat) what it cannot tell"
        )


def caveat(metric: str) -> str:
    """What the metric says of itself that it cannot tell."""
    facts = registry.metrics.get(metric).facts
    return facts.caveat if facts else ""
