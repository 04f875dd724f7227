"""`xai-assert check` of an artefact: with a twin, without one, and with another network's."""

from artefacts.exported import COLOURS, images, network, subject

import xai_assert as xa
from xai_assert.preflight import preflight

METHODS = ("saliency", "edges", "attention_rollout")


def findings(judged):
    found = preflight(judged, images(), METHODS, ["gaussian_noise", "fgsm"])
    return {finding.check: finding for finding in found}


def test_with_a_twin_gradients_are_its_own(ship):
    found = findings(xa.artefact(ship("depth.pt2"), twin=subject()))
    assert found["artefact"].outcome == "ok"
    assert found["artefact"].words.startswith("torch.export depth.pt2, maps from the twin Sequential, ")
    assert found["differentiable"].outcome == "ok"
    assert found["method saliency"].words.startswith("0 forward, 1 gradient passes an image, ")
    assert found["perturbation fgsm"].outcome == "ok"
    assert found["method attention_rollout"].outcome == "skip"


def test_without_a_twin_the_rest_is_checked_all_the_same(ship):
    found = findings(xa.artefact(ship("depth.pt2"), task="depth", **COLOURS))
    for name in ("differentiable", "method saliency", "method attention_rollout", "perturbation fgsm"):
        assert found[name].outcome == "skip"
        assert "twin=module" in found[name].words
    assert found["method edges"].outcome == found["perturbation gaussian_noise"].outcome == "ok"
    assert found["cost"].words.endswith(" and 0.0 ms")  # no gradient pass can be timed


def test_another_networks_weights_fail(ship):
    found = findings(xa.artefact(ship("depth.pt2"), twin=subject(network(1))))
    assert found["artefact"].outcome == "fail"
    assert "another network's weights" in found["artefact"].words
