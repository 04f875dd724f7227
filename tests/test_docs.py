"""What the documents say is run: every example of a docstring, and the Python of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import xai_assert
from xai_assert.testing.flags import OPTIONS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").iterdir() if path.is_file())]
MODULES = sorted(m.name for m in pkgutil.walk_packages(xai_assert.__path__, "xai_assert."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_every_public_function_and_class_has_an_example():
    bare = []
    for name in xai_assert.__all__:
        thing = getattr(xai_assert, name)
        error = isinstance(thing, type) and issubclass(thing, Exception | Warning)
        if not error and callable(thing) and ">>>" not in (thing.__doc__ or ""):
            bare.append(name)
    assert bare == []


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    with xai_assert.registry.isolated():
        exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize(
    ("page", "needs"),
    [
        ("tasks.md", "torch"),
        ("captum.md", "captum.attr"),
        ("artefacts.md", "torch"),
        ("pytorch-grad-cam.md", "pytorch_grad_cam"),
    ],
)
def test_the_python_of_a_page_runs(page, needs):
    pytest.importorskip(needs, reason=f"the page is about an extra: {needs}")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    with xai_assert.registry.isolated():
        exec(compile("\n".join(blocks), page, "exec"), {"__name__": page.removesuffix(".md")})


def test_the_documents_name_every_option_and_none_that_does_not_exist():
    texts = {path: set(re.findall(r"--xai-([a-z-]+[a-z])", path.read_text())) for path in DOCUMENTS}
    assert set.union(*texts.values()) <= set(OPTIONS)
    assert texts[ROOT / "README.md"] == set(OPTIONS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
