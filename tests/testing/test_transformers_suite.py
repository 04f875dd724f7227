"""The suites on a network of transformers, from the command line."""

import pytest

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
from small_transformers import make  # noqa: E402

GATES = """
[[gate]]
metric = "af"
model = "midas"
method = "saliency"
perturbation = "gaussian_noise"
min = 0.1
beats = "random"
"""


@pytest.mark.parametrize(("minimum", "status"), [(0.1, 0), (0.99, 1)])
def test_the_fidelity_suite_on_midas(project, minimum, status):
    from xai_assert import resources

    make("dpt", project.path / "dpt")
    project.path.joinpath("mine.toml").write_text(GATES.replace("0.1", str(minimum)))
    options = ["--xai-model=midas=hf/dpt@pretrained", "--xai-perturbation=gaussian_noise"]
    options += [f"--xai-method={name}" for name in ("saliency", "attention_rollout", "random")]
    fidelity = str(resources.suites() / "test_fidelity.py")
    result = project.run_gates(*options, "--rootdir=.", "--import-mode=importlib", fidelity, model=False)
    assert result.ret == status
    result.stdout.fnmatch_lines(["midas *saliency *gaussian_noise 5% *", "midas *attention_rollout *"])
    cells = {cell["method"]: cell for cell in project.results()["cells"]}
    assert cells["saliency"]["scores"]["af"]["provenance"]["task"] == "depth"
    assert cells["saliency"]["verdict"] == ("pass" if status == 0 else "fail")
