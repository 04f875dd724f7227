"""xai-assert: tests for explanations.

The public names, imported when they are first used, so that `import xai_assert` (and the pytest plugin) costs nothing.
"""

from __future__ import annotations

import importlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_assert import datasets as datasets
    from xai_assert import known_models as known_models
    from xai_assert import registry as registry
    from xai_assert import strategies as strategies
    from xai_assert import tasks as tasks
    from xai_assert.acceleration import accelerate as accelerate
    from xai_assert.accuracy import depth_metrics as depth_metrics
    from xai_assert.artefacts import artefact as artefact
    from xai_assert.assertions import assert_attribution_fidelity as assert_attribution_fidelity
    from xai_assert.assertions import assert_completeness as assert_completeness
    from xai_assert.assertions import assert_complexity as assert_complexity
    from xai_assert.assertions import assert_deletion_auc as assert_deletion_auc
    from xai_assert.assertions import assert_faithfulness_estimate as assert_faithfulness_estimate
    from xai_assert.assertions import assert_fidelity_curve as assert_fidelity_curve
    from xai_assert.assertions import assert_infidelity as assert_infidelity
    from xai_assert.assertions import assert_input_shift as assert_input_shift
    from xai_assert.assertions import assert_insertion_auc as assert_insertion_auc
    from xai_assert.assertions import assert_localization as assert_localization
    from xai_assert.assertions import assert_max_sensitivity as assert_max_sensitivity
    from xai_assert.assertions import assert_randomization_sensitivity as assert_randomization_sensitivity
    from xai_assert.assertions import assert_rank_agreement as assert_rank_agreement
    from xai_assert.assertions import assert_road as assert_road
    from xai_assert.assertions import assert_score as assert_score
    from xai_assert.assertions import assert_sparseness as assert_sparseness
    from xai_assert.assertions import assert_srg as assert_srg
    from xai_assert.assertions import assert_sufficiency as assert_sufficiency
    from xai_assert.attributions import Method as Method
    from xai_assert.attributions import attribute as attribute
    from xai_assert.attributions import heatmap as heatmap
    from xai_assert.attributions import method as method
    from xai_assert.attributions import register_method as register_method
    from xai_assert.batching import Sample as Sample
    from xai_assert.errors import CheckpointError as CheckpointError
    from xai_assert.errors import DataError as DataError
    from xai_assert.errors import DegenerateHeatmapError as DegenerateHeatmapError
    from xai_assert.errors import GatesError as GatesError
    from xai_assert.errors import ModelOutputError as ModelOutputError
    from xai_assert.errors import NearBaselineWarning as NearBaselineWarning
    from xai_assert.errors import NotApplicableError as NotApplicableError
    from xai_assert.errors import NotConvergedWarning as NotConvergedWarning
    from xai_assert.errors import TiedHeatmapWarning as TiedHeatmapWarning
    from xai_assert.errors import UnknownNameError as UnknownNameError
    from xai_assert.evaluation import Evaluation as Evaluation
    from xai_assert.latency import LatencyScore as LatencyScore
    from xai_assert.latency import assert_attribution_latency as assert_attribution_latency
    from xai_assert.latency import attribution_latency as attribution_latency
    from xai_assert.metrics import DepthProtocol as DepthProtocol
    from xai_assert.metrics import FaithfulnessScore as FaithfulnessScore
    from xai_assert.metrics import FidelityScore as FidelityScore
    from xai_assert.metrics import Metric as Metric
    from xai_assert.metrics import Score as Score
    from xai_assert.models import load_model as load_model
    from xai_assert.models import register_model as register_model
    from xai_assert.perturbations import Perturbation as Perturbation
    from xai_assert.perturbations import perturbation as perturbation
    from xai_assert.perturbations import register_perturbation as register_perturbation
    from xai_assert.reporting.baseline import assert_no_regression as assert_no_regression
    from xai_assert.reporting.baseline import compare as compare
    from xai_assert.scores import FidelityCurve as FidelityCurve
    from xai_assert.scores import attribution_fidelity as attribution_fidelity
    from xai_assert.scores import completeness as completeness
    from xai_assert.scores import complexity as complexity
    from xai_assert.scores import deletion_auc as deletion_auc
    from xai_assert.scores import faithfulness_estimate as faithfulness_estimate
    from xai_assert.scores import fidelity_curve as fidelity_curve
    from xai_assert.scores import infidelity as infidelity
    from xai_assert.scores import input_shift as input_shift
    from xai_assert.scores import insertion_auc as insertion_auc
    from xai_assert.scores import localization as localization
    from xai_assert.scores import max_sensitivity as max_sensitivity
    from xai_assert.scores import randomization_sensitivity as randomization_sensitivity
    from xai_assert.scores import rank_agreement as rank_agreement
    from xai_assert.scores import road as road
    from xai_assert.scores import sparseness as sparseness
    from xai_assert.scores import srg as srg
    from xai_assert.scores import sufficiency as sufficiency
    from xai_assert.scores.named import list_metrics as list_metrics
    from xai_assert.scores.named import register_metric as register_metric
    from xai_assert.snapshots import assert_heatmap_matches as assert_heatmap_matches
    from xai_assert.store import Store as Store
    from xai_assert.subject import Card as Card
    from xai_assert.subject import Subject as Subject
    from xai_assert.subject import describe as describe
    from xai_assert.tasks import Task as Task
    from xai_assert.testing.gates import parametrize_with_gates as parametrize_with_gates

_HOMES = {
    "accuracy": ("depth_metrics",),
    "acceleration": ("accelerate",),
    "artefacts": ("artefact",),
    "assertions": (
        "assert_attribution_fidelity",
        "assert_completeness",
        "assert_complexity",
        "assert_deletion_auc",
        "assert_faithfulness_estimate",
        "assert_fidelity_curve",
        "assert_infidelity",
        "assert_input_shift",
        "assert_insertion_auc",
        "assert_localization",
        "assert_max_sensitivity",
        "assert_randomization_sensitivity",
        "assert_rank_agreement",
        "assert_road",
        "assert_score",
        "assert_sparseness",
        "assert_srg",
        "assert_sufficiency",
    ),
    "attributions": ("Method", "attribute", "heatmap", "method", "register_method"),
    "batching": ("Sample",),
    "errors": (
        "CheckpointError",
        "DataError",
        "DegenerateHeatmapError",
        "GatesError",
        "ModelOutputError",
        "NearBaselineWarning",
        "NotApplicableError",
        "NotConvergedWarning",
        "TiedHeatmapWarning",
        "UnknownNameError",
    ),
    "evaluation": ("Evaluation",),
    "latency": ("LatencyScore", "assert_attribution_latency", "attribution_latency"),
    "metrics": ("DepthProtocol", "FaithfulnessScore", "FidelityScore", "Metric", "Score"),
    "models": ("load_model", "register_model"),
    "perturbations": ("Perturbation", "perturbation", "register_perturbation"),
    "reporting.baseline": ("assert_no_regression", "compare"),
    "scores": (
        "FidelityCurve",
        "attribution_fidelity",
        "completeness",
        "complexity",
        "deletion_auc",
        "faithfulness_estimate",
        "fidelity_curve",
        "infidelity",
        "input_shift",
        "insertion_auc",
        "localization",
        "max_sensitivity",
        "randomization_sensitivity",
        "rank_agreement",
        "road",
        "sparseness",
        "srg",
        "sufficiency",
    ),
    "scores.named": ("list_metrics", "register_metric"),
    "snapshots": ("assert_heatmap_matches",),
    "store": ("Store",),
    "subject": ("Card", "Subject", "describe"),
    "tasks": ("Task",),
    "testing.gates": ("parametrize_with_gates",),
}
_PACKAGES = ("datasets", "known_models", "registry", "strategies", "tasks")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, *_PACKAGES])  # a test checks it against the block above


# The running test, set by the pytest plugin and read by xai_assert.reporting.record, which knows nothing of pytest. It
# stands here because an unrelated pytest run imports this module and the plugin, and nothing else of ours.
_running_test: ContextVar[Any] = ContextVar("xai_assert_running_test", default=None)


def _register_hypothesis_profile() -> None:
    """Make the Hypothesis profile "xai" known, for `--hypothesis-profile=xai`; nothing of ours loads it.

    The entry-point group `hypothesis` calls this whenever Hypothesis is imported, also in unrelated runs. Without the
    phase `explain`, which runs the model many times more.
    """
    from hypothesis import Phase, settings

    phases = tuple(phase for phase in Phase if phase is not Phase.explain)
    settings.register_profile("xai", deadline=None, max_examples=25, phases=phases, print_blob=True)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"xai_assert.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"xai_assert.{_HOME_OF[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("xai-assert")
    raise AttributeError(f"module 'xai_assert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
