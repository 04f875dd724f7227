"""Errors of a predicted depth map against the ground truth, and the protocols that say which pixels count."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from xai_assert.errors import UnknownNameError
from xai_assert.metrics.score import Score

Crop = Literal["eigen", "garg"]
EIGEN_SIZE, EIGEN_ROWS, EIGEN_COLUMNS = (480, 640), (45, 471), (41, 601)  # NYU's rim, where the camera sees nothing
GARG_ROWS, GARG_COLUMNS = (0.40810811, 0.99189189), (0.03594771, 0.96405229)  # of KITTI's height and width
FACTOR = 1.25
FEWEST_TIMES = 1e-3  # a prediction is taken to be at least so many times the truth: ratios of it stay positive
HIGHER_IS_BETTER = {"rmse": False, "abs_rel": False, "log10": False, "d1": True, "d2": True, "d3": True}


@dataclass(frozen=True, kw_only=True)
class DepthProtocol:
    """Which pixels count, and what is done to the prediction before.

    Args:
        full_size: compare at the size of the picture, the prediction brought to it (bilinear); otherwise at the size
            of the output. For a tensor of images, the ground truth has this size already.
        crop: only pixels in NYU's "eigen" (rows 45:471, columns 41:601 of 480x640) or KITTI's "garg" crop.
        min_depth, max_depth: in metres; only true depths strictly between them count, and the prediction is clamped
            to them. Without, every known depth counts, and the prediction stays.
        flip: predict for the mirrored image too, and take the mean.

    >>> DepthProtocol(full_size=True, max_depth=80)
    DepthProtocol(full_size=True, crop=None, min_depth=None, max_depth=80, flip=False)
    """

    full_size: bool = False
    crop: Crop | None = None
    min_depth: float | None = None
    max_depth: float | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop not in (None, "eigen", "garg"):
            raise ValueError(f"crop must be 'eigen', 'garg' or None, not {self.crop!r}")
        if not 0 <= (self.min_depth or 0) < (math.inf if self.max_depth is None else self.max_depth):
            raise ValueError(
                f"min_depth must not be negative and be below max_depth, not {self.min_depth} and {self.max_depth}"
            )


PROTOCOLS = {
    "output": DepthProtocol(),
    "full": DepthProtocol(full_size=True),
    "eigen": DepthProtocol(full_size=True, crop="eigen", min_depth=1e-3, max_depth=10),
    "garg": DepthProtocol(full_size=True, crop="garg", min_depth=1e-3, max_depth=80),
}


def as_protocol(protocol: str | DepthProtocol) -> DepthProtocol:
    """A protocol by name or as it is."""
    if isinstance(protocol, DepthProtocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]


def valid_pixels(
    truth: Tensor, *, crop: Crop | None = None, min_depth: float | None = None, max_depth: float | None = None
) -> Tensor:
    """Where a true depth (..., H, W) is known (finite and above 0), between the bounds and in the crop.

    Bounds are exclusive, and in the unit of `truth`.

    Raises:
        ValueError: the Eigen crop for another size than 480x640.

    >>> valid_pixels(torch.tensor([[0.0, 2.0, math.nan, 80.0]]), max_depth=80.0).tolist()
    [[False, True, False, False]]
    """
    valid = torch.isfinite(truth) & (truth > (min_depth or 0))
    if max_depth is not None:
        valid &= truth < max_depth
    height, width = truth.shape[-2:]
    rows, columns = (0, height), (0, width)
    if crop == "eigen":
        if (height, width) != EIGEN_SIZE:
            raise ValueError(f"the Eigen crop is one of 480x640 pixels; the ground truth has {height}x{width}")
        rows, columns = EIGEN_ROWS, EIGEN_COLUMNS
    elif crop == "garg":
        rows = (int(GARG_ROWS[0] * height), int(GARG_ROWS[1] * height))
        columns = (int(GARG_COLUMNS[0] * width), int(GARG_COLUMNS[1] * width))
    inside = torch.zeros_like(valid)
    inside[..., slice(*rows), slice(*columns)] = True
    return valid & inside


def depth_errors(prediction: Tensor, truth: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """RMSE, AbsRel, log10, d1, d2, d3 of each of B maps (B, H, W) over its valid pixels; (B,) float64 each.

    AbsRel is the mean of |p - t| / t, log10 that of |log10 p - log10 t|, dk the share of pixels where p and t differ
    by less than a factor of 1.25^k. For these ratios, a prediction below a thousandth of the truth (also one below 0)
    counts as a thousandth of it.

    Raises:
        ValueError: shapes differ, or a map has no valid pixel.

    >>> found = depth_errors(torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[1.0, 4.0]]]), torch.ones(1, 1, 2) > 0)
    >>> round(found["rmse"].item(), 4), found["abs_rel"].item(), found["d1"].item(), found["d3"].item()
    (0.7071, 0.5, 0.5, 0.5)
    """
    if not prediction.shape == truth.shape == valid.shape or truth.ndim != 3:
        shapes = ", ".join(str(tuple(t.shape)) for t in (prediction, truth, valid))
        raise ValueError(f"prediction, truth and valid must be (B, H, W) of one shape, not {shapes}")
    count = valid.flatten(1).sum(1)
    if not bool((count > 0).all()):
        raise ValueError(f"no valid pixel in {int((count == 0).sum())} of {len(count)} depth maps")
    prediction, truth = prediction.double(), truth.double().where(valid, 1)
    ratio = (prediction / truth).clamp(min=FEWEST_TIMES)
    factor = torch.maximum(ratio, 1 / ratio)

    def mean(values: Tensor) -> Tensor:
        return values.where(valid, 0).flatten(1).sum(1) / count

    found = {
        "rmse": mean((prediction - truth).square()).sqrt(),
        "abs_rel": mean((prediction - truth).abs() / truth),
        "log10": mean(factor.log10()),
    }
    return found | {f"d{k}": mean((factor < FACTOR**k).double()) for k in (1, 2, 3)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DepthScore(Score):
    """One depth metric of every image. `value` is the mean over the images; `pixels` (n,) are the valid ones of each.

    >>> score = DepthScore(torch.tensor([1.0, 2.0]), ("a", "b"), "abs_rel", pixels=torch.tensor([300, 100]))
    >>> score.value, score.pooled
    (1.5, 1.25)
    """

    pixels: Tensor

    @property
    def pooled(self) -> float:
        """Over all pixels of all images together."""
        power = 2 if self.metric == "rmse" else 1
        weights = self.pixels.double().cpu()
        mean = float((weights * self.values**power).sum() / weights.sum())
        return math.sqrt(mean) if power == 2 else mean

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {"pooled": self.pooled, "pixels": self.pixels.tolist()}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DepthScores:
    """The six depth metrics of a subject on a set of images, each a `DepthScore`."""

    rmse: DepthScore
    abs_rel: DepthScore
    log10: DepthScore
    d1: DepthScore
    d2: DepthScore
    d3: DepthScore

    def __repr__(self) -> str:
        unit = f" {self.rmse.unit}" if self.rmse.unit else ""
        numbers = [f"rmse {self.rmse.value:.4g}{unit}"]
        numbers += [f"{f.name} {getattr(self, f.name).value:.4f}" for f in fields(self)[1:]]
        return f"<DepthScores over {len(self.rmse)} images: {', '.join(numbers)}>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {f.name: getattr(self, f.name).to_dict() for f in fields(self)}
