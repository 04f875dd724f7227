"""Heatmap snapshots as a user meets them: created, matched, changed, of a new model, unused, under workers."""

import matplotlib.backends.backend_agg  # noqa: F401  (before pytester restores sys.modules)
import pytest
from PIL import Image

import xai_assert.snapshots
import xai_assert.testing.snapshots  # noqa: F401

TEST = """
import pytest, torch, usermodel, xai_assert as xa

IMAGES = torch.nn.functional.interpolate(
    torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=(16, 16), mode="bicubic"
)

@pytest.mark.parametrize("method", ["integrated_gradients(steps=4)"])
def test_heatmaps(method, heatmap_snapshot):
    subject = usermodel.build()
    CHANGE
    xa.assert_heatmap_matches(subject, method, IMAGES, heatmap_snapshot, image_ids=["kitchen/1", "kitchen:2"])
"""


@pytest.fixture
def snapped(project):
    def write(change="pass", test=TEST):
        project.path.joinpath("test_release.py").write_text(test.replace("CHANGE", change))

    write()
    project.write = write
    project.files = lambda: sorted(p.name for p in project.path.glob("__snapshots__/**/*.h5"))
    project.run_plain = lambda *arguments, **more: project.run_gates(*arguments, model=False, gates=False, **more)
    return project


@pytest.fixture
def accepted(snapped):
    snapped.run_plain("--snapshot-update").assert_outcomes(passed=1)
    return snapped


def test_nothing_stored_is_red_and_says_what_to_do(snapped):
    result = snapped.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["E *heatmap of net-v7 / integrated_gradients(steps=4) on kitchen/1: no stored heatmap; run with --snap*"]
    )
    assert snapped.files() == []


def test_what_was_accepted_is_green_and_is_not_written_again(accepted):
    assert len(accepted.files()) == 2
    paths = sorted(accepted.path.glob("__snapshots__/**/*.h5"))
    before = [(p.stat().st_mtime_ns, p.read_bytes()) for p in paths]
    assert accepted.run_plain().ret == 0
    accepted.write("IMAGES.mul_(1 + 1e-6)")  # within tolerance
    assert accepted.run_plain().ret == 0
    assert accepted.run_plain("--snapshot-update").ret == 0
    assert [(p.stat().st_mtime_ns, p.read_bytes()) for p in paths] == before


def test_a_changed_heatmap_is_red_with_numbers_and_a_picture(accepted):
    accepted.write("IMAGES[0, :, 4:12, 4:12] = -1")  # of the first image alone
    result = accepted.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E *AssertionError: heatmap of net-v7 / integrated_gradients(steps=4) on kitchen/1 changed although the "
            "weights did not: * % of pixels moved by more than 0.001 of the range (1 % allowed), "
            "rank correlation * (0.99 needed), top-5 % overlap * (0.95 needed)",
            "E *stored -> received: same versions and device",
            "E *to accept: look at the picture, run the test with --snapshot-update, commit the file",
            "*- xai_assert -*",
            "picture (stored | received | difference): *.png",
        ]
    )
    lines = [line for line in result.stdout.lines if line.startswith("E ")]
    assert len(lines) <= 6
    (picture,) = accepted.path.glob("xai-report/snapshots/*.png")
    with Image.open(picture) as image:
        assert image.width > 2.5 * image.height
    assert accepted.run_plain("--snapshot-update").ret == 0
    assert accepted.run_plain().ret == 0


def test_a_new_model_is_red_however_close_and_says_how_to_go_on(accepted):
    accepted.write("subject.module.weight.data.mul_(1 + 1e-7); subject.module.weight.data[0, 0] += 1e-6")
    result = accepted.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E *on kitchen*: the MODEL changed (weights * -> *); 0.0 % of pixels moved*",
            "E *2 of 2 heatmaps are red; this is the worst",
            "E *a new model has new heatmaps; whether they are as true: xa.assert_no_regression, --xai-baseline",
            "E *to accept: *--snapshot-update*",
        ]
    )


def test_unused_snapshots_are_reported(accepted):
    accepted.write(test="def test_heatmaps(): pass\n")
    result = accepted.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*2 snapshots unused*"])
    assert accepted.run_plain("--snapshot-update").ret == 0
    assert accepted.files() == []


def test_ids_survive_as_file_names(snapped):
    test = TEST.replace('["integrated_gradients(steps=4)"]', '["saliency"]').replace(
        'parametrize("method", ["saliency"])', 'parametrize("method", ["saliency"], ids=["timm/a:b*?<x>|\\\\\\"c"])'
    )
    snapped.write(test=test)
    assert snapped.run_plain("-W", "error", "--snapshot-update").ret == 0
    assert len(snapped.files()) == 2
    assert not set('/\\:*?<>|"') & set("".join(snapped.files()))
    result = snapped.run_plain("-W", "error")
    assert result.ret == 0
    assert "snapshots unused" not in result.stdout.str()


def test_workers_write_match_and_find_the_unused(snapped):
    assert snapped.run_plain("-n2", "--snapshot-update", inprocess=False).ret == 0
    assert len(snapped.files()) == 2
    result = snapped.run_plain("-n2", inprocess=False)
    assert result.ret == 0
    assert "snapshots unused" not in result.stdout.str()
    snapped.write(test="def test_heatmaps(): pass\ndef test_other(): pass\n")
    result = snapped.run_plain("-n2", inprocess=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*2 snapshots unused*"])


@pytest.mark.parametrize("content", [b"", b"no hdf5", None], ids=["empty", "foreign", "truncated"])
def test_a_stored_file_that_cannot_be_read_is_said(accepted, content):
    path = next(accepted.path.glob("__snapshots__/**/*kitchen-1*.h5"))
    path.write_bytes(path.read_bytes()[:600] if content is None else content)
    result = accepted.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"E *{path.name.replace('[', '[[]')} cannot be read as a stored heatmap (*); restore the file, or run with*"]
    )
    assert accepted.run_plain("--snapshot-update").ret == 0
    assert accepted.run_plain().ret == 0


def test_a_report_folder_that_cannot_be_written_hides_no_failure(accepted):
    accepted.write("IMAGES[:, :, 4:12, 4:12] = -1")
    (accepted.path / "xai-report").write_text("a file is in the way")
    result = accepted.run_plain()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E *changed although the weights did not*", "picture not written to *: *"])


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (
            "assert torch.zeros(4) == heatmap_snapshot",
            "heatmap_snapshot compares heatmaps, not a Tensor; instead of ==",
        ),
        (
            "assert not (IMAGES.numpy() == heatmap_snapshot).any()",  # NumPy would compare pixel by pixel, and be green
            "heatmap_snapshot compares heatmaps, not a ndarray; instead of ==",
        ),
        ("assert IMAGES != heatmap_snapshot", "heatmap_snapshot compares heatmaps, not a Tensor; instead of =="),
        (
            "for m in ('saliency', 'edges'): xa.assert_heatmap_matches(usermodel.build(), m, IMAGES, heatmap_snapshot)",
            "one test asks for two heatmaps of image 0 (net-v7 / saliency, then net-v7 / edges)",
        ),
        (
            "xa.assert_heatmap_matches(usermodel.build(), 'saliency', IMAGES, None)",
            "must be the pytest fixture of that name",
        ),
        (
            "xa.assert_heatmap_matches(usermodel.build(), 'saliency', IMAGES, snapshot)",
            "must be the pytest fixture of that",
        ),
    ],
)
def test_another_use_is_refused(snapped, test, words):
    head = TEST.partition("@pytest")[0]
    snapped.write(test=f"{head}def test_it(heatmap_snapshot, snapshot):\n    {test}\n")
    result = snapped.run_plain("--snapshot-update")
    assert result.ret == 1
    assert words in result.stdout.str()


def test_the_name_of_a_file_does_not_depend_on_the_other_images(snapped):
    ids = '["kitchen/1", "kitchen:1"]'
    test = TEST.replace('["kitchen/1", "kitchen:2"]', ids)
    snapped.write(test=test)
    assert snapped.run_plain("--snapshot-update").ret == 0
    assert len(snapped.files()) == 2
    snapped.write(test=test.replace("IMAGES, heatmap", "IMAGES[1:], heatmap").replace(ids, '["kitchen:1"]'))
    snapped.run_plain().assert_outcomes(passed=1)


@pytest.mark.parametrize("place", ["elsewhere", ".venv/lib/site-packages"])
def test_snapshots_of_an_installed_test_lie_under_the_callers_root(snapped, tmp_path, monkeypatch, place):
    """And those of tests that were not selected stay."""
    home = tmp_path / place if place == "elsewhere" else snapped.path / place
    package = home / f"gates{len(place)}"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    body = TEST.replace("CHANGE", "pass").replace("def test_heatmaps", "def test_a")
    (package / "test_gate.py").write_text(body + body[body.index("@pytest") :].replace("test_a", "test_b"))
    snapped.path.joinpath("test_release.py").unlink()
    snapped.path.joinpath("pytest.ini").touch()
    monkeypatch.syspath_prepend(home)
    name = package.name
    snapped.run_plain("--pyargs", name, "--snapshot-update").assert_outcomes(passed=2)
    assert not list(package.glob("**/*.h5"))
    assert len(list(snapped.path.glob("__snapshots__/test_gate/*.h5"))) == 4
    assert snapped.run_plain("--pyargs", f"{name}.test_gate::test_a", "--snapshot-update").ret == 0
    assert len(snapped.files()) == 4
    assert snapped.run_plain("--pyargs", name).ret == 0


def test_a_test_that_skips_keeps_its_files(snapped):
    test = TEST.replace('["integrated_gradients(steps=4)"]', '["saliency"], ids=["timm/a"]')
    snapped.write(test=test)
    assert snapped.run_plain("--snapshot-update").ret == 0
    before = snapped.files()
    snapped.write("pytest.skip('no such device')", test=test)
    assert snapped.run_plain("--snapshot-update").ret == 0
    assert snapped.files() == before
    assert len(before) == 2


def test_no_picture_where_none_are_wanted(accepted):
    accepted.write("IMAGES[:, :, 4:12, 4:12] = -1")
    result = accepted.run_plain("--xai-report-images=none")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["no picture: --xai-report-images=none"])
    assert not (accepted.path / "xai-report").exists()
