"""`xai-assert sweep` as users run it: cost first, results and picture in the folder, a sentence at the end."""

import json
import os
import re
import sys

import pytest

from xai_assert import registry
from xai_assert.cli import main

MODULE = """
import torch
from xai_assert import register_method
from xai_assert.known_models import KnownModel

KNOWN = KnownModel("pixelwise", 0)


def first():
    return KNOWN.subject((16, 16))


def second():
    return KnownModel("pixelwise", 1).subject((16, 16))


@register_method("truth", replace=True)
def truth(model, images, target):
    return KNOWN.relevance((16, 16)).expand(len(images), -1, -1)


@register_method("interrupted", replace=True)
def interrupted(model, images, target):
    raise KeyboardInterrupt
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """Run the command in a folder with a module `nets` of two models; (status, text, sweep.json)."""
    (tmp_path / "nets.py").write_text(MODULE)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)  # its methods are forgotten with the test

    def run(*words, output="out"):
        status = main(["sweep", *words, "-o", output])
        path = tmp_path / output / "sweep.json"
        captured = capsys.readouterr()
        return status, captured.err + captured.out, json.loads(path.read_text()) if path.is_file() else None

    with registry.isolated():
        yield run


SMALL = ("--quick", "--images", "6", "--part", "sigma", "--part", "gradient_noise", "--method", "truth")


def test_a_model_ends_in_a_sentence_a_table_and_a_picture(sweep, tmp_path):
    status, text, found = sweep("nets:first", *SMALL)
    assert status == 0
    assert re.search(r"3 methods, 4 points, 6 images: [\d,]+ forward and 12 gradient passes, about \d+ m?s", text)
    assert text.index("forward and") < text.index("odds of best") < text.index("ship truth")
    assert text.strip().splitlines()[-1].startswith("pixelwise-0: ship truth: AF +1.00 under gaussian_noise at 5 %")
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert found["schema"] == 1
    assert found["complete"] is True
    assert {cell["method"] for cell in found["models"][0]["cells"]} == {"truth", "random", "edges"}
    assert found["options"]["part"] == ["sigma", "gradient_noise"]


def test_two_models_get_a_sentence_each_and_are_put_side_by_side(sweep):
    status, text, found = sweep("one=nets:first", "two=nets:second", *SMALL)
    assert status == 0
    assert "all models: about" in text
    assert [line.partition(":")[0] for line in text.strip().splitlines()[-2:]] == ["one", "two"]
    assert [row["model"] for row in found["depth"]["models"]] == ["one", "two"]
    assert "gradient noise  AF of saliency" in text


def test_an_interrupted_run_keeps_what_it_measured(sweep):
    status, text, found = sweep("nets:first", *SMALL, "--method", "interrupted")
    assert status == 130
    assert "interrupted; what was measured is kept" in text
    assert "pixelwise-0 (not all was measured): ship truth" in text
    assert found["complete"] is False
    assert {cell["method"] for cell in found["models"][0]["cells"]} == {"truth"}


def test_a_method_that_cannot_be_measured_anywhere_is_status_1(sweep):
    status, text, _ = sweep(
        "nets:first", "--quick", "--images", "6", "--part", "sigma", "--method", "attention_rollout"
    )
    assert status == 1
    assert "ship none: no method could be measured" in text
    assert "skipped: attention_rollout: " in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nets:first", "--method", "salency"), "unknown method 'salency'; did you mean 'saliency'"),
        (("nets:first", "--metric", "fee"), "unknown metric 'fee'; did you mean 'fe'"),
        (("nets:first", "--part", "sigmas"), "unknown part 'sigmas'; did you mean 'sigma'"),
        (("nets:third",), "unknown factory in nets 'third'"),
        (("=nets:first",), "is not of the form [ALIAS=]SPEC[@WEIGHTS]"),
        (("nets:first", "--images", "3", "--method", "saliency"), "a choice of a method needs at least 5, there are 3"),
        (("nets:first", "--images", "0"), "--images must be at least 1, not 0"),
        (("nets:first", "nets:first", "--images", "8"), "two models are called 'pixelwise-0'; give them names"),
        (("nets:first", "--data", "nowhere"), "nowhere"),
        (("nets:first", "--device", "tpu"), "tpu"),
    ],
)
def test_a_mistake_is_a_sentence_and_nothing_is_written(sweep, words, said):
    status, text, found = sweep(*words)
    assert status == 2
    assert text.startswith("xai-assert sweep: ")
    assert said in text
    assert found is None


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(sweep, tmp_path):
    (tmp_path / "file").touch()
    status, text, _ = sweep("nets:first", *SMALL, "--method", "interrupted", output="file/out")
    assert status == 2
    assert "xai-assert sweep: " in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said_before_anything_is_measured(sweep, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    status, text, _ = sweep("nets:first", *SMALL, "--method", "interrupted")
    assert status == 2
    assert "Permission denied" in text


def test_results_of_before_stay_whole_if_the_next_run_is_refused(sweep, tmp_path):
    sweep("nets:first", *SMALL)
    before = (tmp_path / "out" / "sweep.json").read_bytes()
    assert sweep("nets:first", "--method", "salency")[0] == 2
    assert (tmp_path / "out" / "sweep.json").read_bytes() == before
