"""The likely cause of a fidelity that fell short, from what was measured beside it: no pass more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xai_assert.metrics.fidelity import FidelityScore
from xai_assert.metrics.score import FEWEST, Score

HIGH_FE = 0.5  # of a random map the correlation over 16 groups has a standard deviation of .26: this is two of them
LOW_AF = 0.1
MOSTLY = 0.5  # share of R that are edges; by chance it is the fraction itself


def diagnose(score: Score, beside: Mapping[str, Score]) -> list[str]:
    """What may have gone wrong, most telling first; empty where nothing points anywhere.

    Args:
        score: that did not pass; only a `FidelityScore` is diagnosed.
        beside: other scores of the same method and perturbation, by the name of their metric.

    Example:
        >>> import torch
        >>> import xai_assert as xa
        >>> network, images = torch.nn.Conv2d(3, 1, 1), torch.rand(12, 3, 8, 8)
        >>> _ = torch.nn.init.ones_(network.weight)  # it adds the channels: the brightest pixels matter most
        >>> def inverted(model, images, target):
        ...     return -(images.abs() * model.module.weight.abs()).sum(1)
        >>> method = xa.method(inverted, signed="as_is")
        >>> score = xa.attribution_fidelity(network, method, images, perturbation="black", task="depth",
        ...                                 mean=[0.0] * 3, std=[1.0] * 3, fraction=0.1)
        >>> [cause.split()[0] for cause in diagnose(score, {})][:1]
        ['inverted?']
    """
    return list(_causes(score, beside)) if isinstance(score, FidelityScore) else []


def _causes(score: FidelityScore, beside: Mapping[str, Score]) -> Iterator[str]:
    if 2 * score.unresponsive > len(score):
        return  # the verdict says so, and nothing else can be told
    if _clearly_negative(score):
        yield (
            "inverted? the pixels called irrelevant move the prediction more: look for a gradient with the wrong sign, "
            "attention read along rows instead of columns, or a signed map without its absolute value"
        )
    fe = beside.get("fe")
    if fe is not None and fe.value > HIGH_FE and score.value < LOW_AF:
        yield (
            f"right on average, not at the ends: FE is {fe.value:.2f}, so relevance follows the error over all pixels, "
            "but not at the few that are perturbed here; compare a larger fraction, or srg"
        )
    if score.saturated:
        yield (
            "saturated: the errors are near those of a prediction that lost all its structure, and cannot tell two "
            "regions apart; lower the strength or the fraction"
        )
    if "edge_overlap" in score.details:
        share, chance = float(score.details["edge_overlap"].mean()), float(score.provenance.get("fraction", 0.0))
        if share > max(MOSTLY, 3 * chance) and score.provenance.get("method") != "edges":
            yield (
                f"dominated by edges: {share:.0%} of the relevant pixels are the image's strongest edges ({chance:.0%} "
                "by chance); such a map follows the picture, whatever the network does"
            )


def _clearly_negative(score: Score) -> bool:
    if len(score) >= FEWEST:
        return score.interval(0.95)[1] < 0
    return score.mean < -2 * score.standard_error
