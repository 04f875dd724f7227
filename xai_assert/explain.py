"""The failure text: about eight lines, of which the first says enough alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import xai_assert
from xai_assert import registry
from xai_assert.diagnoses import diagnose
from xai_assert.metrics import FaithfulnessScore, FidelityScore, Score
from xai_assert.metrics.score import ALL_IMAGES
from xai_assert.reporting import record
from xai_assert.verdicts import Bound, Control

CALLS = {  # the public function of a metric that has another name, and what its provenance does not say
    "af": ("attribution_fidelity", ""),
    "asr": ("attribution_fidelity", ""),
    "fe": ("faithfulness_estimate", ""),
    "fe_cumulative": ("faithfulness_estimate", ""),
    "infidelity_raw": ("infidelity", ", normalize=False"),
    **{
        f"localization_{kind}": ("localization", f", masks=masks, kind={kind!r}")
        for kind in ("mass", "rank", "pointing")
    },
}
GIVEN = ("subject", "method", "images", "task", "unit")
NAMES = {"af": "AF", "asr": "ASR", "fe": "FE", "fe_cumulative": "cumulative FE"}


def explain(
    score: Score,
    bound: Bound,
    because: str,
    control: Control | None = None,
    beside: Mapping[str, Score] | None = None,
) -> str:
    """What was compared, by how much it missed, on which images, beside what control, and how to run it again.

    `beside` are other scores of the same method that were measured already; they may tell the likely cause.
    """
    lines = [f"{headline(score)}, {because}", images_line(score, bound)]
    if isinstance(score, FidelityScore):
        lines.append(errors_line(score))
        lines += ["marks: " + "; ".join(score.marks)] if score.marks else []
    if isinstance(score, FaithfulnessScore) and score.degenerate:
        lines.append(f"without variance (FE counted as 0): {score.degenerate} of {len(score)} images")
    lines += [control_line(score, control)] if control else []
    lines += [f"likely: {cause}" for cause in diagnose(score, beside or {})]
    lines.append(circumstances(score))
    lines.append(f"reproduce: {reproduce(score)}")
    return "\n  ".join(line for line in lines if line)


def headline(score: Score) -> str:
    """`AF of meter-xxs-nyu / saliency under gaussian_noise at 5% is 0.123 on 20 images`."""
    about = score.provenance
    name = NAMES.get(score.metric, score.metric)
    what = f" of {about['model']} / {about['method']}" if "model" in about and "method" in about else ""
    under = f" under {about['perturbation']}" if about.get("perturbation") else ""
    at = f" at {100 * about['fraction']:.3g}%" if "fraction" in about else ""
    unit = f" {score.unit}" if score.unit else ""
    count = "" if whole_set(score) else f" on {len(score)} image{'s' * (len(score) != 1)}"
    return f"{name}{what}{under}{at} is {score.value:.3f}{unit}{count}"


def whole_set(score: Score) -> bool:
    """Whether the score is one number for all images."""
    return score.image_ids == (ALL_IMAGES,)


def images_line(score: Score, bound: Bound) -> str:
    """How many images miss the bound on their own, and those that miss it most."""
    if whole_set(score):
        return ""
    above = bound.max is not None and (bound.min is None or score.value > bound.max)
    if bound.min is None and bound.max is None:
        above = not score.higher_is_better
    limit, word = (bound.max, "above") if above else (bound.min, "below")
    order = score.values.argsort(descending=above, stable=True)[:3].tolist()
    worst = ", ".join(f"{score.image_ids[i]} {float(score.values[i]):.3f}" for i in order)
    if limit is None:
        return f"worst images: {worst}"
    missed = int((score.values > limit).sum() if above else (score.values < limit).sum())
    return f"images {word} the bound: {missed} of {len(score)} ({missed / len(score):.0%}); worst: {worst}"


def errors_line(score: FidelityScore) -> str:
    unit = score.unit_of_error or "output units"
    rel, irr = float(score.relevant_error.mean()), float(score.irrelevant_error.mean())
    means = f"mean error in {unit} after perturbing R: {rel:.4g}, I: {irr:.4g}"
    return f"{means} (R above I: p={score.paired_p:.2g}); ASR {score.asr:.2f}"


def control_line(score: Score, control: Control) -> str:
    """The random control on the same images: computed now, on failure alone, so that a pass costs nothing more."""
    if score.provenance.get("method") == "random":
        return ""
    try:
        return f"control on the same images: random {control('random').value:.3f}"
    except Exception as error:  # the failure that is being explained must not be replaced by another
        return f"control: could not be measured ({error})"


def circumstances(score: Score) -> str:
    about = score.provenance
    words = [f"seed {about['seed']}"] if "seed" in about else []
    words += [f"errors against the {about['reference'].replace('_', ' ')}"] if "reference" in about else []
    words += [f"weights {about['weights']} ({about['fingerprint']})"] if "fingerprint" in about else []
    words += [f"torch {about['versions']['torch']} on {about['device']}"] if "versions" in about else []
    return "; ".join(words)


def reproduce(score: Score) -> str:
    """One line that measures this again: the test, or outside of one the call."""
    test = record.current()
    if test and test.reproduce:
        return test.reproduce
    about = score.provenance
    if "method" not in about:
        return f"xa.assert_score(score, ...) with the Score of {score.metric!r}"
    function, more = CALLS.get(score.metric, (score.metric, ""))
    if function not in xai_assert.__all__:  # a metric of the caller's
        return f"xa.registry.metrics.get({score.metric!r}).measure(evaluation, ...)"
    known = [*inspect.signature(getattr(xai_assert, function)).parameters, "seed"]
    arguments = ", ".join(
        [f"{name}={about[name]!r}" for name in known if about.get(name) is not None and name not in GIVEN]
    )
    arguments += more
    named = about["method"].partition("(")[0] in registry.methods.names()
    method = repr(about["method"]) if named else about["method"]  # a callable of the caller's goes by its own name
    return f"xa.{function}(subject, {method}, images, {arguments})"
