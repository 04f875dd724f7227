"""AF and FE: the metrics of "Shedding Light on Depth"."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics import FaithfulnessScore, FidelityScore
from xai_assert.metrics.faithfulness import GROUPS, Mode
from xai_assert.metrics.fidelity import Aggregate, AsrRule, Reference
from xai_assert.perturbations import Perturbation
from xai_assert.scores.base import Subjectlike, as_evaluation


def attribution_fidelity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    fraction: float = 0.05,
    reference: Reference = "prediction",
    aggregate: Aggregate = "image",
    asr: AsrRule = "relevant",
    **options: Unpack[EvaluationOptions],
) -> FidelityScore:
    """Attribution fidelity (AF) and attack success rate of a method ("Shedding Light on Depth", 2509.15980).

    R and I are the `fraction` of the pixels with the highest and the lowest relevance. Each is perturbed; rel and irr
    are the errors that follow. AF of an image is (rel - irr) / (|rel| + |irr|), in [-1, 1]; higher is better, 0 is a
    random map. AF judges the method on this network, never the network.

    Args:
        subject: a `Subject`, a bare module (then say `task=`), or an `Evaluation` in place of (subject, images).
        method: a name, an `xa.method(...)`, or a callable `(model, images, target) -> tensor`.
        images: the network's input (B, C, H, W), already preprocessed, or a data set; None, for a
            registered model, stands for the 24 bundled scenes.
        perturbation: a name or an `xa.perturbation(...)`.
        fraction: of the pixels, above 0 and at most 0.5.
        reference: errors against the clean "prediction" (needs no ground truth) or against the "ground_truth".
        aggregate: "image" (mean of the images' AF) or "set" (AF of the two mean errors).
        asr: an attack succeeds when rel > irr ("relevant"), or when rel exceeds the clean error ("degrades", with
            ground truth only).
        **options: `ground_truth`, `image_ids`, `seed`, `target`, `batch_size`, `task`, `mean`, `std`, `unit`; see
            `Evaluation`.

    Raises:
        ValueError: an argument is out of its range, or the images are not what the network takes.
        DegenerateHeatmapError: a heatmap is constant or not finite.
        ModelOutputError: the model fails, or returns NaN.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> images = torch.rand(4, 3, 8, 8)
        >>> score = attribution_fidelity(nn.Conv2d(3, 1, 1), "edges", images, task="depth")
        >>> len(score), score.unresponsive
        (4, 0)
    """
    evaluation = as_evaluation(subject, images, options)
    return evaluation.attribution_fidelity(
        method, perturbation=perturbation, fraction=fraction, reference=reference, aggregate=aggregate, asr=asr
    )


def faithfulness_estimate(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    perturbation: str | Perturbation = "gaussian_noise",
    groups: int = GROUPS,
    mode: Mode = "single",
    **options: Unpack[EvaluationOptions],
) -> FaithfulnessScore:
    """Faithfulness estimate (FE): correlation of the groups' relevance with the error they cause (1806.07538).

    The pixels are sorted by relevance and cut into `groups` whose sizes differ by at most one. FE of an image is the
    Pearson correlation, in [-1, 1], of a group's summed relevance with the error after it is perturbed: alone
    (mode="single"), or together with all more relevant ones (mode="cumulative", where even a random map scores about
    .85). Without variance it is 0, and counted (`score.degenerate`).

    Args:
        subject, method, images, perturbation, **options: as for `attribution_fidelity`.
        groups: at least 2; one forward pass each.
        mode: "single" or "cumulative".

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> faithfulness_estimate(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").groups
        16
    """
    evaluation = as_evaluation(subject, images, options)
    return evaluation.faithfulness_estimate(method, perturbation=perturbation, groups=groups, mode=mode)
