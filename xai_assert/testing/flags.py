"""The flags of the plugin, as pytest knows them: on the command line `--xai-NAME`, in its ini file `xai_name`.

What they mean is read in `options`. An unrelated pytest run imports this too, so it imports nothing but pytest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

OPTIONS: dict[str, tuple[str, str | None, str]] = {
    # name: (kind, default, help)
    "device": ("one", "auto", "where models run: auto, cpu, cuda, cuda:N or mps"),
    "accelerate": (
        "many",
        None,
        "channels_last, bfloat16, float16 or compile: passes that are faster and round otherwise; repeatable",
    ),
    "model": (
        "many",
        None,
        "[ALIAS=]SPEC[@WEIGHTS]; SPEC is a registered name or module:factory; repeatable; without it, the networks "
        "that come with the project (the fixture xai_model: the first)",
    ),
    "task": (
        "one",
        None,
        "of the networks that come with the project, in place of --xai-model: depth (which is also the default), "
        "classification, segmentation, or all: one of each",
    ),
    "method": ("many", None, "attribution method, name or name(key=value); repeatable"),
    "perturbation": ("many", None, "perturbation, name or name(key=value); repeatable"),
    "metric": ("many", None, "further metric to measure in every cell and to report, gate or none; repeatable"),
    "fraction": ("many", "0.05", "share of the pixels called relevant, above 0 and at most 0.5; repeatable"),
    "data": (
        "one",
        None,
        "folder of RGB + depth pairs, HDF5 file, nyu(path='...') or kitti(path='...', files='...'); without it, the "
        "bundled scenes",
    ),
    "depth-scale": ("one", "1000", "stored depth values per metre in PNG files: 1000 = millimetres, 256 = KITTI"),
    "group-by": ("one", None, "column of the data: every score also on each slice of it, the worst one gated too"),
    "images": ("one", None, "use the first N images of the data"),
    "seed": ("one", "0", "seed of everything drawn at random"),
    "report": (
        "one",
        None,
        "folder for results.json and report.html (default: xai-report under the root, once a gate has run)",
    ),
    "report-images": (
        "one",
        "worst",
        "pictures in the report: none, worst (the worst and the best image of each cell) or all; pictures of the data "
        "then lie in the report folder",
    ),
    "gates": ("one", None, "gates.toml with the thresholds (default: the one of the suites)"),
    "baseline": ("one", None, "results.json of an accepted run: a score that fell since then makes the run red"),
    "margin": ("one", "0.05", "how far a score may fall below the baseline, beside what chance allows"),
    "shard": ("one", None, "I/N: run part I of N, for several machines; `xai-assert merge` joins their results"),
    "strict": ("flag", None, "a gate that was skipped or did not apply makes the run red"),
    "cache": ("one", None, "folder in which attributions are kept for later runs; auto: in the user's cache folder"),
    "cache-size": ("one", "2048", "MB that the folder of --xai-cache may hold"),
    "strict-cache": ("flag", None, "--xai-strict allows attributions of earlier runs"),
    "plan": ("flag", None, "say how many passes and minutes the run would take, and do not run it"),
}

_Ini = Literal["linelist", "string", "bool"]
_KINDS: dict[str, tuple[str, _Ini, object]] = {  # action on the command line, type and default in the ini file
    "one": ("store", "string", ""),
    "many": ("append", "linelist", []),
    "flag": ("store_true", "bool", False),
}


def add_flags(parser: pytest.Parser) -> None:
    """Have pytest know them, on the command line and in its ini file."""
    group = parser.getgroup("xai", "xai-assert: tests for explanations")
    for name, (kind, default, text) in OPTIONS.items():
        action, ini_type, nothing = _KINDS[kind]
        help_text = f"{text} [{default}]" if default else text
        group.addoption(f"--xai-{name}", action=action, default=None, help=help_text)
        parser.addini(f"xai_{name.replace('-', '_')}", help_text, type=ini_type, default=nothing)


def option(config: pytest.Config, name: str) -> Any:
    """What the user asked for: the command line before the ini file; None if nothing."""
    given = config.getoption(f"--xai-{name}")
    if given is None:
        return config.getini(f"xai_{name.replace('-', '_')}") or None
    if "" in listed(given):  # an unset variable must not mean the default
        raise pytest.UsageError(f"--xai-{name} is empty; leave it out, or say what you want")
    return given


def option_path(config: pytest.Config, name: str) -> Path | None:
    """A path: of the command line relative to where pytest was called, of the ini file relative to that file."""
    text = option(config, name)
    if text is None:
        return None
    given = config.getoption(f"--xai-{name}") is not None
    start = config.invocation_params.dir if given or not config.inipath else config.inipath.parent
    return Path(start, text)


def report_folder(config: pytest.Config) -> Path:
    """Where the report of this run goes."""
    return option_path(config, "report") or config.rootpath / "xai-report"


def listed(value: Any) -> list[Any]:
    """The values of a flag that may be repeated, or the one of another."""
    return value if isinstance(value, list) else [value]
