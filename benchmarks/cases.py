"""The works, and who does them: one case is a network and a work, its contenders run in alternation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import xai_assert as xa
from benchmarks import bare, rivals
from benchmarks.measuring import BARE, Contender, reason
from benchmarks.networks import Setup, target
from benchmarks.weaving import Needed
from xai_assert.batching import Passes, counted
from xai_assert.metrics import FidelityCell

OURS, CAPTUM, QUANTUS, PLAIN = "ours", "captum", "quantus", "plain loop"
CONTENDERS = (BARE, OURS, CAPTUM, QUANTUS, PLAIN)
NO_METRIC = "has no such metric"
# of a saliency map, or as quick as one: a few passes an image
SHORT = ("saliency", "rollout", "cell", "fe", "deletion", "srg", "infidelity", "max_sensitivity")
WORKS = (*SHORT, "table", "adaptive_ig", "ig")


@dataclass(frozen=True)
class Case:
    """A work on a network. A long one says how many passes of the batch it `needed`, forward and gradient."""

    work: str
    title: str
    contenders: list[Contender]
    needed: Needed | None = None


def options(setup: Setup) -> dict[str, Any]:
    """What all our calls are given: the same scalar and batch as everyone."""
    return {"target": target, "batch_size": setup.batch}


def attribute(setup: Setup, method: Any) -> torch.Tensor:
    """Our attribution."""
    return xa.attribute(setup.subject, setup.images, method, **options(setup))


def evaluation(setup: Setup) -> xa.Evaluation:
    """A fresh one, which has measured nothing yet."""
    return xa.Evaluation(setup.subject, setup.images, **options(setup))


def ig(steps: int | str, **parameters: Any) -> xa.Method:
    return xa.method("integrated_gradients", steps=steps, **parameters)


def saliency(setup: Setup) -> Case:
    contenders = [
        Contender(BARE, bare.passes(setup, 0, 1)),
        Contender(OURS, partial(attribute, setup, "saliency")),
        rivals.contender(CAPTUM, partial(rivals.captum_saliency, setup)),
        Contender(QUANTUS, None, "takes its attributions from Captum"),
    ]
    return Case("saliency", "saliency", contenders)


def integrated_gradients(setup: Setup) -> Case:
    steps = setup.network.steps
    needed = (0, steps)
    contenders = [
        Contender(BARE, bare.passes(setup, *needed)),
        Contender(OURS, partial(attribute, setup, ig(steps))),
        rivals.contender(CAPTUM, partial(rivals.captum_ig, setup, steps)),
        Contender(QUANTUS, None, "takes its attributions from Captum"),
    ]
    return Case("ig", f"IG-{steps}", contenders, needed)


def adaptive(setup: Setup) -> Case:
    """How many gradients it takes is only known afterwards: it runs once beforehand, to be counted."""
    title, spent = "adaptive IG", Passes()
    try:
        run = partial(attribute, setup, ig("auto", most=setup.network.most))
        with counted(setup.module, spent):
            run()
    except (TypeError, ValueError) as error:  # a version without it
        return Case("adaptive_ig", title, [Contender(OURS, None, reason(error))])
    needed = (-(-spent.forward // setup.batch), -(-spent.gradient // setup.batch))
    contenders = [
        Contender(BARE, bare.passes(setup, *needed)),
        Contender(OURS, run),
        Contender(CAPTUM, None, "has no adaptive steps"),
        Contender(QUANTUS, None, "takes its attributions from Captum"),
    ]
    return Case("adaptive_ig", title, contenders, needed)


def rollout(setup: Setup) -> Case:
    if not setup.network.attention:
        return Case("rollout", "attention rollout", [Contender(OURS, None, "a network without attention")])
    product = Contender(PLAIN, partial(bare.product_heatmap, setup))
    if not bare.one_matrix(bare.encoder_taps(setup)):
        product = Contender(PLAIN, None, "a hierarchical network has no one matrix of attention")
    contenders = [
        Contender(BARE, bare.passes(setup, 1, 0)),
        Contender(OURS, partial(attribute, setup, "attention_rollout")),
        Contender(CAPTUM, None, "has no rollout"),
        Contender(QUANTUS, None, "takes its attributions from Captum"),
        product,
    ]
    return Case("rollout", "attention rollout", contenders)


def fidelity_cell(setup: Setup) -> Case:
    def ours() -> object:
        return evaluation(setup).attribution_fidelity("saliency", fraction=bare.FRACTION)

    explain = rivals.captum_explainers(setup, 1)[0]
    contenders = [
        Contender(BARE, bare.passes(setup, 1 + 2, 1)),
        Contender(OURS, ours),
        rivals.contender(CAPTUM, partial(bare.plain_cell, setup, explain, "gaussian_noise")),
        Contender(QUANTUS, None, rivals.NO_TARGET),
        Contender(PLAIN, partial(bare.plain_cell, setup, bare.saliency_heatmap, "gaussian_noise")),
    ]
    return Case("cell", "one fidelity cell (saliency)", contenders)


def table(setup: Setup) -> Case:
    """The paper's: saliency, IG and (where there is attention) rollout under three perturbations, FE apart."""
    steps, attention = setup.network.table_steps, setup.network.attention
    methods = ["saliency", ig(steps), *(["attention_rollout"] if attention else [])]
    cells = len(methods) * len(bare.PERTURBATIONS)

    def ours() -> None:
        ev = evaluation(setup)
        for method in methods:
            ev.plan(method, [FidelityCell(xa.perturbation(name), bare.FRACTION) for name in bare.PERTURBATIONS])
        for method in methods:
            for name in bare.PERTURBATIONS:
                ev.attribution_fidelity(method, perturbation=name, fraction=bare.FRACTION)

    explainers = rivals.captum_explainers(setup, steps)
    if attention:
        explainers.append(rollout_of_table)
    needed = (1 + attention + 2 * cells, 1 + steps)
    contenders = [
        Contender(BARE, bare.passes(setup, *needed)),
        Contender(OURS, ours),
        rivals.contender(CAPTUM, partial(bare.plain_table, setup, explainers)),
        Contender(QUANTUS, None, rivals.NO_TARGET),
    ]
    return Case("table", f"whole table, {cells} cells, IG-{steps}", contenders, needed)


def rollout_of_table(setup: Setup) -> torch.Tensor:
    """For the cell-by-cell table, which Captum gives no rollout: ours, so that it decides nothing there."""
    return attribute(setup, "attention_rollout")


def metric(setup: Setup, work: str, title: str, ours: Callable[[], object], forwards: int, gradients: int) -> Case:
    """A metric of a saliency map: so many passes are needed."""
    captum = {"infidelity": rivals.captum_infidelity, "max_sensitivity": rivals.captum_sensitivity}
    contenders = [
        Contender(BARE, bare.passes(setup, forwards, gradients)),
        Contender(OURS, ours),
        rivals.contender(CAPTUM, partial(captum[work], setup))
        if work in captum
        else Contender(CAPTUM, None, NO_METRIC),
        rivals.quantus(setup, work),
    ]
    return Case(work, title, contenders)


def metrics(setup: Setup) -> dict[str, Callable[[], Case]]:
    """One clean pass and one gradient, and what each metric adds; only max-sensitivity needs no clean one."""
    n, patches, draws = rivals.POINTS, rivals.PATCHES, rivals.DRAWS

    def fe() -> object:
        return evaluation(setup).faithfulness_estimate("saliency", groups=n)

    def deletion() -> object:
        return xa.deletion_auc(evaluation(setup), "saliency", steps=n)

    def srg() -> object:
        return xa.srg(evaluation(setup), "saliency", steps=n)

    def infidelity() -> object:
        return xa.infidelity(evaluation(setup), "saliency", samples=patches)

    def max_sensitivity() -> object:
        return xa.max_sensitivity(evaluation(setup), "saliency", samples=draws, radius=rivals.RADIUS)

    of = partial(partial, metric, setup)
    return {
        "fe": of("fe", f"FE, {n} groups", fe, 1 + n, 1),
        "deletion": of("deletion", f"deletion AUC, {n} points", deletion, 1 + n, 1),
        "srg": of("srg", f"SRG: deletion and insertion, {n} points", srg, 1 + 2 * n - 1, 1),
        "infidelity": of("infidelity", f"infidelity, {patches} patches", infidelity, 1 + patches, 1),
        "max_sensitivity": of("max_sensitivity", f"max-sensitivity, {draws} draws", max_sensitivity, 0, 1 + draws),
    }


def cases(setup: Setup) -> dict[str, Callable[[], Case]]:
    """All works on a network, short ones first; each is made when its turn comes."""
    first = {"saliency": saliency, "rollout": rollout, "cell": fidelity_cell}
    last = {"table": table, "adaptive_ig": adaptive, "ig": integrated_gradients}
    return {
        **{work: partial(make, setup) for work, make in first.items()},
        **metrics(setup),
        **{work: partial(make, setup) for work, make in last.items()},
    }
