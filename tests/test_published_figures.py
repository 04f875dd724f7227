"""The whole table on real photographs, held against figures that were measured before this code was written."""

import json

import pytest

# AF at 5 % of the official METER-XXS on the first 20 images of NYU's test split. Between seeds the mean moves by about
# .02 (one standard deviation); .05 is two and a half of them, and the rounding of the figures.
AF = {
    ("saliency", "black"): -0.29,
    ("saliency", "mean"): 0.05,
    ("saliency", "gaussian_noise"): 0.48,
    ("integrated_gradients", "black"): 0.36,
    ("integrated_gradients", "mean"): 0.27,
    ("integrated_gradients", "gaussian_noise"): 0.07,
    ("edges", "black"): 0.39,
    ("edges", "mean"): 0.43,
    ("edges", "gaussian_noise"): -0.27,
}
TOLERANCE = 0.05


@pytest.mark.slow
def test_the_table_of_the_design(pytester, shared_data):
    from xai_assert import resources

    weights = shared_data / "weights" / "meter" / "build_model_best_nyu_xxs"
    options = [f"--xai-model=meter-xxs-nyu@{weights}", f"--xai-data={shared_data / 'nyu_test20'}"]
    where = ["-p", "no:cacheprovider", f"--rootdir={pytester.path}", "--import-mode=importlib"]
    result = pytester.runpytest_subprocess(*where, str(resources.suites()), *options)
    assert result.ret == 0
    found = json.loads((pytester.path / "xai-report" / "results.json").read_text())
    scores = {(c["method"], c["perturbation"]): c["scores"]["af"] for c in found["cells"] if not c.get("of_run")}
    assert len(scores) == 20
    for cell, expected in AF.items():
        assert scores[cell]["value"] == pytest.approx(expected, abs=TOLERANCE), cell
    for perturbation in ("black", "mean", "gaussian_noise", "fgsm"):
        values = scores["random", perturbation]["values"]
        mean = sum(values) / 20
        spread = (sum((v - mean) ** 2 for v in values) / 19) ** 0.5
        assert abs(mean) < 3 * spread / 20**0.5
