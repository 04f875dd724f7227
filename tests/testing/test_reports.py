"""What a run leaves behind: pictures only as asked, a step summary, and red where a gate was skipped and may not be."""

import base64
import io

import matplotlib.backends.backend_agg  # noqa: F401  (before pytester restores sys.modules)
import pytest
from PIL import Image

import xai_assert.reporting.pictures  # noqa: F401
from xai_assert.reporting import folder, markdown


def files(project, name="xai-report"):
    return sorted(path.name for path in (project.path / name / "pictures").glob("*"))


def test_the_worst_and_the_best_image_of_each_cell_are_shown(project):
    assert project.run_gates().ret == 0
    for cell in project.results()["cells"]:
        af = cell["scores"]["af"]
        by_value = sorted(zip(af["values"], map(str, af["image_ids"]), strict=True))
        shown = [(p["role"], p["image_id"], p["value"]) for p in cell["pictures"]]
        assert shown == [
            ("worst", by_value[0][1], pytest.approx(by_value[0][0])),
            ("best", by_value[-1][1], pytest.approx(by_value[-1][0])),
        ]
        for picture in cell["pictures"]:
            with Image.open(project.path / "xai-report" / picture["file"]) as strip:
                assert strip.size == (8 * 168, 168)
    page = (project.path / "xai-report" / "report.html").read_text()
    one = (project.path / "xai-report" / picture["file"]).read_bytes()
    assert base64.b64encode(one).decode() in page


def test_no_picture_leaks_if_none_is_wanted_and_those_of_an_earlier_run_go(project):
    assert project.run_gates("--xai-report-images=all").ret == 0
    assert len(files(project)) == 2 * 12
    assert project.run_gates("--xai-report-images=none").ret == 0
    assert files(project) == []
    assert all(cell["pictures"] == [] for cell in project.results()["cells"])
    assert "data:image" not in (project.path / "xai-report" / "report.html").read_text()


def test_a_word_that_is_none_is_refused(project):
    result = project.run_gates("--xai-report-images=best")
    assert result.ret not in (0, 5)
    assert "report-images must be one of none, worst, all, not 'best'" in result.stdout.str() + result.stderr.str()


def test_an_assertion_of_a_users_own_test_has_pictures_too(project):
    project.makepyfile(
        test_release="""
        import usermodel, torch, xai_assert as xa

        def test_mine():
            images = torch.rand(6, 3, 16, 16)
            xa.assert_attribution_fidelity(usermodel.build(), "saliency", images, min_af=0.5)
        """
    )
    assert project.run_gates("--xai-report=out", gates=False).ret == 0
    (record,) = project.results("out")["cells"]
    assert [p["role"] for p in record["pictures"]] == ["worst", "best"]
    assert len(files(project, "out")) == 2


def test_an_assertion_of_a_fixture_keeps_its_pictures(project):
    project.makepyfile(
        test_release="""
        import pytest, usermodel, torch, xai_assert as xa

        @pytest.fixture
        def checked():
            xa.assert_attribution_fidelity(usermodel.build(), "saliency", torch.rand(6, 3, 16, 16), min_af=0.5)

        def test_mine(checked):
            pass
        """
    )
    result = project.run_gates("--xai-report=out", gates=False)
    assert result.ret == 0
    (record,) = project.results("out")["cells"]
    assert "pictures_error" not in record
    assert len(files(project, "out")) == 2


def test_a_picture_that_cannot_be_made_does_not_end_the_run(project, monkeypatch):
    def broken(evidence):
        raise ValueError("no colours today")

    monkeypatch.setattr("xai_assert.reporting.pictures.strip", broken)
    result = project.run_gates()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["pictures of 2 cells could not be made (ValueError: no colours today)"])


def test_of_a_property_the_worst_example_is_recorded(project):
    project.makepyfile(
        test_release="""
        import usermodel, torch, xai_assert as xa
        from hypothesis import given, settings, strategies as st

        SUBJECT, IMAGES = usermodel.build(), torch.rand(6, 3, 16, 16)

        @settings(max_examples=15, deadline=None, database=None, derandomize=True)
        @given(sigma=st.integers(1, 1000).map(lambda i: i / 1000))
        def test_mine(sigma):
            noise = xa.perturbation("gaussian_noise", sigma=sigma)
            xa.assert_attribution_fidelity(SUBJECT, "saliency", IMAGES, min_af=-1, perturbation=noise)
        """
    )
    assert project.run_gates("--xai-report=out", gates=False).ret == 0
    (record,) = project.results("out")["cells"]
    assert record["measurements"] > 10


def test_a_read_only_report_folder_is_said_and_red(project):
    (project.path / "xai-report").write_text("a file is in the way")
    result = project.run_gates()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["RESULTS NOT WRITTEN to *xai-report: *; the table above is complete"])


def test_strict_refuses_a_gate_that_was_skipped(project):
    project.path.joinpath("mine.toml").write_text(
        """
        [[gate]]
        metric = "af"
        method = "saliency"
        min = 0.5
        [[gate]]
        metric = "af"
        method = "attention_rollout"
        min = 0.0
        """
    )
    project.makepyfile(
        test_release="""
        import xai_assert as xa

        @xa.parametrize_with_gates(methods=["saliency", "attention_rollout"], perturbations=["gaussian_noise"])
        def test_release(gate):
            gate.check()
        """
    )
    assert project.run_gates().ret == 0
    result = project.run_gates("--xai-strict")
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        ["GATES WERE SKIPPED, which --xai-strict refuses (exit status 5): net-v7+attention_rollout+gaussian_noise"]
    )


def test_strict_minds_no_cell_without_a_gate(project):
    result = project.run_gates("--xai-strict")  # random has no gate
    assert result.ret == 0


def test_the_step_summary_is_appended_what_is_red_first(project, monkeypatch):
    summary = project.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    project.path.joinpath("mine.toml").write_text('[[gate]]\nmetric = "af"\nmethod = "random"\nmin = 0.4\n')
    assert project.run_gates().ret == 1
    lines = summary.read_text().splitlines()
    assert lines[0] == "before"
    rows = [line for line in lines if line.startswith("| net-v7")]
    assert "random" in rows[0]
    assert "FAIL" in rows[0]
    assert "saliency" in rows[1]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path))  # a folder
    project.run_gates().stdout.fnmatch_lines(["step summary not written to *: Is a directory"])


def record(name, verdict="pass"):
    about = {"model": name, "method": "saliency", "perturbation": "black", "fraction": 0.05, "error": None}
    return {"cell": name, "verdict": verdict, "scores": {}, "marks": [], "gates": [], **about}


def test_a_step_summary_stays_under_its_limit_and_says_so():
    records = [record(f"model-{number}") for number in range(500)] + [record("worst", "fail")]
    text = markdown.step_summary(records, [], limit=4000)
    assert len(text.encode()) <= 4000
    first = next(line for line in text.splitlines() if line.startswith("| ") and "model |" not in line)
    assert first.startswith("| worst |")
    shown = sum(line.startswith("| model-") for line in text.splitlines())
    assert f"{500 - shown} more cells are left out here: see results.json" in text


def test_a_step_summary_holds_no_markup_of_its_users():
    text = markdown.step_summary([record("<img src=x>|*a*")], ["`b` [c](d)"])
    assert "<img" not in text
    assert "&#60;img src=x&#62;&#124;&#42;a&#42;" in text
    assert "[c]" not in text


def test_pictures_are_taken_out_of_the_records():
    picture = io.BytesIO(b"strip")
    one = record("m+s+b") | {
        "pictures": [{"image_id": "a/b", "role": "worst", "webp": base64.b64encode(picture.getvalue()).decode()}]
    }
    assert folder.take_strips([one]) == {"0000-m-s-b-0.05-a-b.webp": b"strip"}
    assert one["pictures"] == [{"image_id": "a/b", "role": "worst", "file": "pictures/0000-m-s-b-0.05-a-b.webp"}]
