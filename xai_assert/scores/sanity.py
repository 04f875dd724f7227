"""What must hold of any explanation of this model: completeness, parameter randomisation, input shift."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from xai_assert.attributions import as_method
from xai_assert.attributions.baselines import Baseline, split
from xai_assert.batching import Samples
from xai_assert.evaluation import EvaluationOptions
from xai_assert.metrics.completeness import COMPLETENESS, CompletenessCell, baseline_of
from xai_assert.metrics.input_shift import INPUT_SHIFT, SHIFT, InputShiftCell
from xai_assert.metrics.randomization import LAYERS, RANDOMIZATION, Order, RandomizationCell
from xai_assert.metrics.score import Score
from xai_assert.scores.base import Subjectlike, as_evaluation
from xai_assert.scores.named import register_cell


def completeness(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    baseline: Baseline | None = None,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """How far an attribution's sum is from f(x) - f(b), relative to |f(x) - f(b)| (1703.01365). Lower is better.

    The difference counts as at least a hundredth of the larger of |f(x)| and |f(b)|: where they nearly agree, a gap
    relative to it would say nothing. A small gap can be luck, and says nothing of where the relevance lies.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        baseline: b, as `integrated_gradients` takes it, one forward pass each; of several f(b) is the mean. By default
            that of the method, or "black" if it has none.

    Raises:
        TypeError: the baseline is a colour and the subject has no mean and std.
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> colours = {"mean": [0.5] * 3, "std": [0.5] * 3}
        >>> images = torch.rand(4, 3, 8, 8)
        >>> score = completeness(nn.Conv2d(3, 1, 3), "integrated_gradients", images, task="depth", **colours)
        >>> score.value < 1e-3
        True
    """
    wanted = as_method(method)
    if baseline is None and len(split(baseline_of(wanted))) > 1:
        baseline = baseline_of(wanted)  # said, so that its passes are counted
    return as_evaluation(subject, images, options).score(wanted, CompletenessCell(baseline), COMPLETENESS)


def randomization_sensitivity(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    mode: Order = "cascading",
    layers: int = LAYERS,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """How much the heatmap changes when the model's layers are redrawn (1810.03292): 0 is a map that ignores it.

    1 - the mean of |Spearman's rank correlation| of the heatmaps before and after, in [0, 1]; higher is better. Every
    parameter of a layer is redrawn with a seed of its own, normal with the root mean square of its values, scales of
    norms and raw parameters included; buffers such as BatchNorm's running means are data and stay. It happens to a
    copy, kept as long as the evaluation; the model itself is not touched. A map that is constant after the change
    correlates with nothing; their share is in `score.details["constant"]`.

    Any map that follows the weights passes, also a wrong one. One that reads a part of the model (a rollout of the
    encoder) cannot change with the rest, and scores lower for it. A callable that holds the model itself, and does not
    use the one that it is given, is found to ignore it.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        mode: "cascading" redraws from the output (the layer that was registered last) to the input, one layer after
            another; "independent" each layer alone.
        layers: after how many of them the method explains the copy: spread evenly, the output's and the input's among
            them; all, where the model has no more.

    Raises:
        NotApplicableError: the model has no parameters, or cannot be copied.
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> randomization_sensitivity(nn.Conv2d(3, 1, 1), "edges", torch.rand(4, 3, 8, 8), task="depth").value
        0.0
    """
    return as_evaluation(subject, images, options).score(method, RandomizationCell(mode, layers), RANDOMIZATION)


def input_shift(
    subject: Subjectlike,
    method: Any,
    images: Tensor | Samples | None = None,
    *,
    shift: float = SHIFT,
    **options: Unpack[EvaluationOptions],
) -> Score:
    """How much the heatmap changes under a constant shift that the model undoes (1711.00867). Lower is better.

    g(x) = f(x - s) sees at x + s what f sees at x, so its explanation there must be the same. The value is the
    distance of the two heatmaps over the norm of f's, 0 for an invariant method. A fixed baseline is another colour
    after the shift: integrated gradients vary, which is the paper's finding.

    Args:
        subject, method, images, **options: as for `attribution_fidelity`.
        shift: s, in ImageNet standard deviations, the same in every channel.

    Raises:
        What `attribution_fidelity` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> input_shift(nn.Conv2d(3, 1, 3), "saliency", torch.rand(4, 3, 8, 8), task="depth").value
        0.0
    """
    return as_evaluation(subject, images, options).score(method, InputShiftCell(shift), INPUT_SHIFT)


register_cell(COMPLETENESS, lambda perturbation, fraction: CompletenessCell())
register_cell(RANDOMIZATION, lambda perturbation, fraction: RandomizationCell())
register_cell(INPUT_SHIFT, lambda perturbation, fraction: InputShiftCell())
