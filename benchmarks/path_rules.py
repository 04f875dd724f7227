"""Where to put the gradients of an integral: rules of integration compared as maps, at equal numbers of gradients.

    python benchmarks/path_rules.py MODEL@WEIGHTS [--data DIR] [--images N] -o DIR

For each image the distance of a rule's map to a reference of 1600 points (graded, alpha = t^3) and its completeness
gap. Writes path_rules.json and path_rules.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import xai_assert as xa
from xai_assert.attributions.baselines import resolve_baseline
from xai_assert.attributions.gradients import value_and_gradient
from xai_assert.attributions.path_integral import GRADING, gap, integrate
from xai_assert.datasets import bundled_images, open_data
from xai_assert.preserve import undisturbed
from xai_assert.tasks import depth_mean

Rule = Callable[[int], tuple[np.ndarray, np.ndarray]]  # n -> places in [0, 1] and their weights
BUDGETS = (25, 50, 100, 200)
REFERENCE = 1600
CHUNK = 4


def uniform(n: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    places, weights = np.polynomial.legendre.leggauss(n)
    return (places + 1) / 2, weights / 2


def clenshaw_curtis(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev's points; the weights integrate each Chebyshev polynomial below degree n exactly."""
    angles = np.pi * np.arange(n) / (n - 1)
    degrees = np.arange(n)
    integrals = np.where(degrees % 2 == 0, 2 / (1 - np.where(degrees % 2, 0, degrees) ** 2.0), 0)
    weights = np.linalg.solve(np.cos(np.outer(degrees, angles)), integrals)
    return (1 - np.cos(angles)) / 2, weights / 2


def substituted(grade: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """The midpoint rule in t, with alpha = grade(t); the weights are the widths in alpha."""

    def rule(n: int) -> tuple[np.ndarray, np.ndarray]:
        edges = grade(np.arange(n + 1) / n)
        return grade((np.arange(n) + 0.5) / n), np.diff(edges)

    return rule


cubic = substituted(lambda t: t**3)
RULES: dict[str, Rule] = {
    "uniform midpoint": uniform,
    "Gauss-Legendre": gauss_legendre,
    "Clenshaw-Curtis": clenshaw_curtis,
    "graded t^3": cubic,
    "graded exponentially": substituted(lambda t: np.expm1(GRADING * t) / np.expm1(GRADING)),
}
BISECTION, ADAPTIVE = "bisection of the largest gap", "steps='auto'"


class Path_:
    """The gradient along the path of one image."""

    def __init__(self, subject: xa.Subject, image: Tensor) -> None:
        self.subject, self.image = subject, image
        self.start = resolve_baseline(subject, image, "black").expand_as(image)
        self.path = image - self.start

    def at(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """f (n,) and the gradient times the path (n, C, H, W)."""
        values, gradients = [], []
        for part in np.array_split(places, -(-len(places) // CHUNK)):
            alphas = self.path.new_tensor(part)[:, None, None, None]
            value, gradient = value_and_gradient(self.subject, self.start + alphas * self.path, depth_mean)
            values.append(value)
            gradients.append(gradient * self.path)
        return torch.cat(values), torch.cat(gradients)

    def integral(self, rule: Rule, n: int) -> Tensor:
        """The map (H, W), summed up as it comes."""
        places, weights = rule(n)
        total = torch.zeros_like(self.path[0], dtype=torch.float64)
        for part, weight in zip(
            np.array_split(places, n // CHUNK + 1), np.array_split(weights, n // CHUNK + 1), strict=True
        ):
            if len(part):
                _, change = self.at(part)
                total += torch.einsum("n...,n->...", change.double(), torch.from_numpy(weight))
        return total.sum(0)

    def bisected(self, n: int) -> Tensor:
        """Trapezoids; the one whose integral misses most of what f does over it is cut in half."""
        places = list(np.linspace(0, 1, 9))
        values, changes = (list(found) for found in self.at(np.array(places)))
        while len(places) < n:
            widths = np.diff(places)
            missed = [
                abs(float(w * (a.sum() + b.sum()) / 2 - (after - before)))
                for w, a, b, before, after in zip(widths, changes, changes[1:], values, values[1:], strict=False)
            ]
            worst = int(np.argmax(missed))
            middle = (places[worst] + places[worst + 1]) / 2
            (value,), (change,) = self.at(np.array([middle]))
            places.insert(worst + 1, middle)
            values.insert(worst + 1, value)
            changes.insert(worst + 1, change)
        total = sum(w * (a + b).double() / 2 for w, a, b in zip(np.diff(places), changes, changes[1:], strict=False))
        return total.sum(0)

    def adaptive(self, n: int) -> tuple[Tensor, int]:
        found = integrate(self.subject, self.image, self.start, depth_mean, tolerance=1e-9, most=n)
        return found.integral[0].double().sum(0), int(found.gradients[0])

    def ends(self) -> dict[float, float]:
        """f along the path, for the scale of the gap."""
        places = np.linspace(0, 1, 65) ** 3
        return dict(zip(places.tolist(), self.at(places)[0].tolist(), strict=True))


def distance(found: Tensor, reference: Tensor) -> float:
    """L1 between the two heatmaps, relative."""
    found, reference = found.abs(), reference.abs()
    return float((found - reference).abs().sum() / reference.sum())


def measure(
    subject: xa.Subject, images: list[Tensor], budgets: Sequence[int]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """rule -> budget -> per image: gradients, distance, gap."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number, image in enumerate(images):
        path = Path_(subject, image[None])
        reference, along = path.integral(cubic, REFERENCE), path.ends()
        for n in budgets:
            maps = {name: (path.integral(rule, n), n) for name, rule in RULES.items()}
            maps |= {BISECTION: (path.bisected(n), n), ADAPTIVE: path.adaptive(n)}
            for name, (one, used) in maps.items():
                entry = {"gradients": used, "distance": distance(one, reference), "gap": gap(float(one.sum()), along)}
                found.setdefault(name, {}).setdefault(str(n), []).append(entry)
        print(f"image {number + 1} of {len(images)}", flush=True)
    return found


def table(found: dict[str, dict[str, list[dict[str, float]]]], n: int) -> str:
    lines = [
        "| rule | distance, median | of uniform | smaller on | gap, median | gap, 10 % to 90 % |",
        "|---|---|---|---|---|---|",
    ]
    base = np.array([one["distance"] for one in found["uniform midpoint"][str(n)]])
    for name, by_budget in found.items():
        far = np.array([one["distance"] for one in by_budget[str(n)]])
        gaps = np.array([one["gap"] for one in by_budget[str(n)]])
        low, high = np.quantile(gaps, [0.1, 0.9])
        better = f"{(far < base).sum()} of {len(far)}" if name != "uniform midpoint" else ""
        lines.append(
            f"| {name} | {np.median(far):.4f} | {np.median(far) / np.median(base):.2f} | {better} "
            f"| {np.median(gaps):.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines)


def extent(found: dict[str, dict[str, list[dict[str, float]]]]) -> tuple[float, float]:
    """The smallest and the largest median distance."""
    medians = [np.median([one["distance"] for one in images]) for rule in found.values() for images in rule.values()]
    return float(min(medians)), float(max(medians))


def draw(found: dict[str, dict[str, list[dict[str, float]]]], title: str, to: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    budgets = [int(n) for n in found[ADAPTIVE]]
    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    for name, by_budget in found.items():
        used = [np.median([one["gradients"] for one in by_budget[str(n)]]) for n in budgets]
        far = [np.median([one["distance"] for one in by_budget[str(n)]]) for n in budgets]
        axes.plot(used, far, marker="o", markersize=4, linewidth=2.4 if name == ADAPTIVE else 1.2, label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="gradients an image", ylabel="distance to the converged map", title=title
    )
    axes.set_xticks(budgets, labels=[str(n) for n in budgets])
    axes.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2], labels=["0.01", "0.02", "0.05", "0.1", "0.2"])
    axes.minorticks_off()
    axes.set_ylim(*(limit * factor for limit, factor in zip(extent(found), (0.8, 1.25), strict=True)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(to, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="MODEL@WEIGHTS")
    parser.add_argument("--data", help="as --xai-data; the bundled scenes by default")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS, help="gradients an image")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    name, _, weights = options.model.partition("@")
    subject = xa.load_model(name, weights or None)
    data = open_data(options.data, subject.card) if options.data else bundled_images(subject.card)
    images = [data[i].image for i in range(min(options.images, len(data)))]
    with undisturbed(subject):
        found = measure(subject, images, options.budgets)
    options.output.mkdir(parents=True, exist_ok=True)
    about = {"model": subject.name, "images": len(images), "reference": REFERENCE, "rules": found}
    (options.output / "path_rules.json").write_text(json.dumps(about))
    if len(options.budgets) > 1:
        draw(found, f"{subject.name}, {len(images)} images", options.output / "path_rules.png")
    for n in options.budgets:
        print(f"{n} gradients\n\n{table(found, n)}\n")


if __name__ == "__main__":
    main()
