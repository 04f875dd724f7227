"""The public names: all there, imported late, and listed once for people and once for type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xai_assert


def test_every_name_is_there():
    assert [name for name in xai_assert.__all__ if getattr(xai_assert, name, None) is None] == []
    assert dir(xai_assert) == xai_assert.__all__


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(xai_assert.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == xai_assert.__all__
    for name, module in seen.items():
        assert module in ("xai_assert", f"xai_assert.{xai_assert._HOME_OF.get(name)}")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'xai_assert' has no attribute 'asert_score'"):
        _ = xai_assert.asert_score


def test_importing_the_package_imports_nothing_else():
    code = "import sys, xai_assert; print(sorted(m for m in sys.modules if m.startswith(('xai_assert.', 'torch'))))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
