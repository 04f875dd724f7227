"""`--xai-accelerate`: every model of the run, and what it does to the numbers in every artefact."""

import json


def test_every_cell_says_it(project):
    result = project.run_gates("--xai-accelerate=bfloat16", "--xai-accelerate=channels_last")
    assert result.ret == 0
    mark = "accelerated: channels_last, bfloat16 (predictions move by 0 of"
    result.stdout.fnmatch_lines([f"*saliency*gaussian_noise*{mark}*"])
    cells = json.loads((project.path / "xai-report" / "results.json").read_text())["cells"]
    about = [cell["scores"]["af"]["provenance"]["acceleration"] for cell in cells if "af" in cell.get("scores", {})]
    assert len(about) == 2
    assert about[0] == about[1] == {"what": "channels_last, bfloat16", "error": 0}  # a product a pixel stays in float32


def test_a_mistake_ends_the_run_with_a_sentence(project):
    result = project.run_gates("--xai-accelerate=fp8")
    assert result.ret == 2
    assert "unknown acceleration 'fp8'" in result.stdout.str() + result.stderr.str()


def test_also_two_that_do_not_go_together(project):
    result = project.run_gates("--xai-accelerate=float16", "--xai-accelerate=bfloat16")
    assert result.ret == 2
    assert "of the precisions one, not float16, bfloat16" in result.stdout.str() + result.stderr.str()
