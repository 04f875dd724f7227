"""Where the suites and fixtures lie: at the top of a checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def suites() -> Path:
    """The folder of the ready-made gates, with gates.toml."""
    return _find("suites", "suites")


def fixtures() -> Path:
    """The folder of the bundled data."""
    return _find("_fixtures", "fixtures")


def _find(in_wheel: str, in_checkout: str) -> Path:
    for folder in (PACKAGE / in_wheel, PACKAGE.parent / in_checkout):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"xai_assert: neither {PACKAGE / in_wheel} nor {PACKAGE.parent / in_checkout} exists")
