"""--xai-group-by: a planted method that is right on one camera's images and upside down on the other's."""

import h5py
import numpy as np
import pytest

from xai_assert import cli

TESTS = """
import torch
import xai_assert as xa

def right_on_bright(model, images, target):
    # the weights of the network grow down the picture; of dark images the map is upside down
    rows = torch.linspace(0, 1, 16)[None, :, None].expand(len(images), 16, 16).clone()
    rows += torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) / 100
    dark = images.mean((1, 2, 3)) < 0
    rows[dark] = rows[dark].flip(1)
    return rows

@xa.parametrize_with_gates(methods=[xa.method(right_on_bright, signed="as_is")], perturbations=["gaussian_noise"])
def test_release(gate):
    gate.check()
"""
GATES = """
[[gate]]
metric = "af"
min = 0.2
"""


@pytest.fixture
def run(project):
    project.makepyfile(test_release=TESTS)
    project.path.joinpath("mine.toml").write_text(GATES)
    images = np.random.default_rng(0).integers(0, 100, (40, 16, 16, 3), dtype=np.uint8)
    images[:32] += 150
    with h5py.File(project.path / "val.h5", "w") as file:
        file["images"] = images
        file["camera"] = ["bright"] * 32 + ["dark"] * 8
    return lambda *options: project.run_gates(
        "--xai-data=val.h5", "--xai-images=40", *options, inprocess="-n2" not in options
    )


def test_the_whole_passes_and_a_slice_does_not(project, run):
    assert run().ret == 0
    result = run("--xai-group-by=camera")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E *AssertionError: AF of net-v7 / right_on_bright *on the slice camera=dark (8 images) it is -0.*",
            "model *sliced by *slices *worst AF (images) *best AF (images)",
            "net-v7 *camera *2 *dark -0.* (8) *bright +0.* (32)",
        ]
    )
    (cell,) = project.results()["cells"]
    assert cell["slices"]["column"] == "camera"
    worst, best = cell["slices"]["metrics"]["af"]
    assert (worst["name"], worst["count"], best["name"], best["count"]) == ("dark", 8, "bright", 32)
    whole = (8 * worst["value"] + 32 * best["value"]) / 40
    assert whole == pytest.approx(cell["scores"]["af"]["value"])
    assert worst["p"] <= 0.05 < best["p"]
    page = (project.path / "xai-report" / "report.html").read_text()
    assert '"column":"camera"' in page.replace(" ", "")


def test_slices_come_back_from_workers_and_survive_a_merge(project, run):
    assert run("--xai-group-by=camera").ret == 1
    slices = [cell["slices"] for cell in project.results()["cells"]]
    assert run("--xai-group-by=camera", "--xai-shard=1/1", "--xai-report=part").ret == 1
    assert cli.main(["merge", "part", "-o", "merged"]) == 1
    assert [cell["slices"] for cell in project.results("merged")["cells"]] == slices
    assert '"column":"camera"' in (project.path / "merged" / "report.html").read_text().replace(" ", "")

    pytest.importorskip("xdist", reason="needs pytest-xdist")
    result = run("--xai-group-by=camera", "-n2")
    result.stdout.fnmatch_lines(["net-v7 *camera *2 *dark -0.* (8) *bright +0.* (32)"])
    assert [cell["slices"] for cell in project.results()["cells"]] == slices


def test_an_unknown_column_ends_the_run_with_a_sentence(project, run):
    result = run("--xai-group-by=weather")
    assert result.ret != 0
    assert "val.h5 has no column 'weather'; its columns: camera" in result.stdout.str() + result.stderr.str()
