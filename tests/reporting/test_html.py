"""report.html: what it says, and what it does in a real browser."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from reporting.browser import CHROMIUM, browser

from xai_assert.reporting.html import render
from xai_assert.reporting.pictures import CAPTIONS, TILE

HOSTILE = "<img src=x onerror=window.broken=1>"
BREAKOUT = "</script><script>window.broken = 1</script>"
METHODS = ("saliency", "integrated_gradients", "random", "edges", "mine")
FILLERS = ("black", "mean", "gaussian_noise", "fgsm", "blur", "shuffle")
MODELS = [f"net-{k}" for k in range(9)] + [HOSTILE]  # with methods and fillers: 300 cells
VERDICTS = ("report", "pass", "fail", "undecided", "waived")


def score(value, count=12, **more):
    values = [max(-1.0, min(1.0, value + (k - (count - 1) / 2) / 40)) for k in range(count)]
    return {
        "metric": "af",
        "value": value,
        "unit": None,
        "higher_is_better": True,
        "n": count,
        "interval95": [value - 0.1, value + 0.1],
        "image_ids": [f"room-{k}" for k in range(count)],
        "values": values,
        "provenance": {"device": "cpu", "weights": "nyu", "fingerprint": "02b869"},
        "relevant_error": [1.5] * count,
        "irrelevant_error": [0.5] * count,
        "unit_of_error": "m",
        "reference": "prediction",
        "asr": 0.75,
    } | more


def cell(model="net", method="saliency", perturbation="black", verdict="pass", value=0.4, **more):
    gate = {
        "metric": "af",
        "bound": "min=0.29, beats='random'",
        "outcome": verdict,
        "because": "AF is low",
        "reason": "R",
    }
    return {
        "cell": f"{model}+{method}+{perturbation}",
        "model": model,
        "method": method,
        "perturbation": perturbation,
        "fraction": 0.05,
        "seed": 0,
        "scores": {"af": score(value)},
        "marks": [],
        "gates": [] if verdict == "report" else [gate],
        "verdict": verdict,
        "error": None,
        "of_run": False,
        "data": "<ImageSet scenes.h5: 12 images 8x8, for net>",
        "nodeid": f"suites/test_fidelity.py::test_fidelity[{model}+{method}+{perturbation}]",
    } | more


def document(cells, **more):
    return {
        "schema": 1,
        "complete": True,
        "created": "2026-11-23T01:51:04+00:00",
        "versions": {"python": "3.11.7", "torch": "2.15.0", "cuda": None},
        "precision": "TF32 is off",
        "options": {"seed": "0", "model": None, "method": ["saliency", "random"]},
        "summary": {},
        "cells": cells,
    } | more


def three_hundred():
    names = [(model, method, filler) for model in MODELS for method in METHODS for filler in FILLERS]
    cells = [cell(*name, VERDICTS[k % 5], value=((k * 37) % 181 - 90) / 100) for k, name in enumerate(names)]
    cells[7] |= {"verdict": "error", "error": f"ValueError: {BREAKOUT}", "scores": {}, "gates": []}
    cells[8] |= {"marks": ["saturated", "unequal change (1.63 / 3.15)", "circular (signs agree 56%)"]}
    return cells


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


class Loads(HTMLParser):
    """Everything that a page could fetch: the addresses in its markup."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


# --- without a browser ---------------------------------------------------------------------------------------------


def test_the_table_is_there_without_javascript_the_red_ones_first():
    page = render(document([cell(verdict=v, method=v) for v in ("pass", "report", "fail", "error", "undecided")]), None)
    body = page[page.index("<tbody") : page.index("</tbody>")]
    assert re.findall(r">(\w+)</a>", body) == ["fail", "error", "undecided", "pass", "report"]
    assert "+0.400" in body
    assert "+0.300 … +0.500" in body
    assert "3 of 4 judged cells are red" in page


def test_it_says_what_was_run():
    run = cell(of_run=True, verdict="fail")
    page = render(
        document(
            [cell(), run],
            complete=False,
            notes=["a line & more"],
            baseline={
                "lines": ["baseline old.json: 1 missing"],
                "red": True,
                "rows": {"x": {"outcome": "missing", "red": True}},
            },
        ),
        None,
    )
    for words in (
        "This run was interrupted",
        "2026-11-23 01:51 UTC",
        "ImageSet scenes.h5: 12 images 8x8<",
        "a line &amp; more",
        "old.json",
        "torch 2.15.0<",
        "saliency, random",
        "None of 1 judged cells is red, 1 of 1 gates on the run itself red, and the baseline is not met (1 missing)",
    ):
        assert words in page
    assert len(embedded(page)["cells"]) == 1  # gates on the run are no cells


def test_it_loads_nothing_and_no_name_becomes_markup():
    page = render(document(three_hundred()), None)
    assert all(address.startswith(("#", "data:")) for address in Loads(page).found)
    assert not re.search(r"@import|url\(|//fonts|\bfetch\(|innerHTML|<img ", page)
    assert BREAKOUT not in page
    assert page.count("<script") == 2  # the data and the code
    assert embedded(page)["cells"][-1]["model"] in MODELS


def test_ids_are_links_and_each_is_one():
    cells = [cell(), cell(fraction=0.1), cell(model=HOSTILE), cell(cell=None, nodeid="tests/test_a.py::test_b")]
    page = render(document(cells), None)
    names = [found["id"] for found in embedded(page)["cells"]]
    assert names[:2] == ["cell-net+saliency+black", "cell-net+saliency+black-2"]
    assert names[2] == "cell-img-src-x-onerror-window.broken-1-+saliency+black"
    assert names[3] == "cell-tests-test_a.py-test_b"


def test_a_sign_that_depends_on_the_perturbation_is_said_and_marked():
    cells = [cell(perturbation=p, value=v) for p, v in (("gaussian_noise", 0.4), ("black", -0.4), ("mean", 0.05))]
    page = render(document(cells), None)
    assert '<h2 id="turns" tabindex="-1">The sign of AF depends on the perturbation' in page
    assert "<li>net saliency at 5%: AF above 0 under gaussian_noise (+0.40); below 0 under black (-0.40)</li>" in page
    assert [one["marks"] for one in embedded(page)["cells"]] == [["sign turns"], ["sign turns"], []]
    assert embedded(page)["marks"]["sign turns"].startswith("Under some perturbations AF lies above 0")
    assert '<a href="#turns">The sign of AF depends on the perturbation</a> for 1 of' in page
    assert 'id="turns"' not in render(document(cells[::2]), None)


def test_pictures_are_in_the_page_each_once(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8 * TILE, 126)).save(tmp_path / "pictures" / "a.webp")
    (tmp_path / "pictures" / "broken.webp").write_bytes(b"nothing")
    pictures = [
        {"image_id": 3, "value": -0.2, "role": "worst", "file": f"pictures/{n}.webp"} for n in ("a", "gone", "broken")
    ]
    page = render(document([cell(pictures=pictures), cell(method="edges", pictures=pictures[:1])]), tmp_path)
    found = [picture for one in embedded(page)["cells"] for picture in one["pictures"]]
    assert [(p.get("number"), p.get("tiles")) for p in found] == [(0, 8), (None, None), (None, None), (0, 8)]
    assert found[0]["ratio"] == pytest.approx(TILE / 126)
    assert found[1]["missing"] == "No such file or directory"
    assert found[2]["missing"] == "is no picture"
    content = base64.b64encode((tmp_path / "pictures" / "a.webp").read_bytes()).decode()
    assert page.count(f"data:image/webp;base64,{content}") == 1


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(document([cell(value=float("nan"))]), None)


def test_a_run_of_nothing_and_a_score_of_ones_own():
    assert "No cell was judged" in render(document([]), None)
    mine = {"value": 12.5, "n": 1, "values": [12.5], "image_ids": ["a"], "unit": "ms", "higher_is_better": False}
    bare = dict.fromkeys(("model", "method", "perturbation", "fraction", "seed", "error"))
    page = render(document([bare | {"scores": {"latency": mine}, "gates": [], "verdict": "caught"}]), None)
    assert "latency 12.5" in page


# --- in a browser --------------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH: the page is not tried in a browser"
)
SHOWN = "[...document.querySelectorAll('#table tbody tr')].filter(r => r.offsetParent !== null)"
NET = "#cell-net-0+saliency+black"


@pytest.fixture(scope="module")
def tab():
    with browser() as page:
        yield page


DROP = {
    "drop": 0.21,
    "text": "AF 0.43 -> 0.22 (drop 0.21)",
    "outcome": "regressed",
    "red": True,
    "margin": 0.05,
    "confidence": 0.95,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "pictures").mkdir()
    Image.effect_noise((8 * TILE, 126), 50).convert("RGB").save(folder / "pictures" / "a.webp")
    cells = three_hundred()
    picture = {"image_id": HOSTILE, "value": -0.2, "role": "worst", "file": "pictures/a.webp"}
    cells[0] |= {
        "pictures": [picture, picture | {"file": f"pictures/{HOSTILE}.webp"}],
        "regression": {"af": DROP, "fe": DROP | {"drop": None, "text": "FE not compared", "red": False}},
    }
    path = folder / "report.html"
    path.write_text(render(document(cells), folder), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_error_and_no_request(request):
    """Whatever a test does with the page, nothing may be thrown, and nothing but the file be loaded."""
    yield
    if "tab" in request.fixturenames:
        tab = request.getfixturevalue("tab")
        assert tab.problems == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:", "about:"))] == []
        assert not tab.run("window.broken")


def column(tab, name):
    return tab.run(f"{SHOWN}.map(r => r.querySelector('.c-{name}').textContent.trim())")


@needs_chromium
def test_the_filter_leaves_the_rows_that_fit(tab, report):
    tab.open(report)
    assert len(column(tab, "model")) == 300
    tab.click("#filter input")
    tab.type("EDGES blur")
    assert column(tab, "method") == ["edges"] * 10
    assert set(column(tab, "perturbation")) == {"blur 5%"}
    assert tab.run("document.getElementById('shown').textContent") == "10 of 300 cells"
    tab.run("document.querySelector('[name=model]').value = 'net-3'")
    tab.run("document.querySelector('[name=model]').dispatchEvent(new Event('input', {bubbles: true}))")
    assert column(tab, "model") == ["net-3"]
    tab.click("#filter input")
    tab.type(" no such thing")
    assert column(tab, "model") == []
    tab.click("#again")
    tab.wait(f"{SHOWN}.length === 300")


@needs_chromium
def test_columns_sort_up_and_down_by_click_and_by_key(tab, report):
    tab.open(report)
    verdicts = column(tab, "verdict")
    assert verdicts == sorted(
        verdicts, key=["fail", "regressed", "error", "undecided", "waived", "pass", "report"].index
    )
    tab.click("th[data-key=af] button")
    numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(tab, "af") if text]
    assert len(numbers) == 299
    assert numbers == sorted(numbers)
    assert column(tab, "af")[-1] == ""  # the error has no AF, and is last
    tab.press("Enter")  # on the button that the click gave the focus
    numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(tab, "af") if text]
    assert numbers == sorted(numbers, reverse=True)
    assert column(tab, "af")[-1] == ""
    assert tab.run("[...document.querySelectorAll('th[aria-sort]')].map(t => [t.dataset.key, t.ariaSort])") == [
        ["af", "descending"]
    ]
    tab.click("th[data-key=model] button")
    assert column(tab, "model") == sorted(column(tab, "model"))


@needs_chromium
def test_a_cell_opens_by_key_and_escape_gives_the_focus_back(tab, report):
    tab.open(report)
    first = tab.run("document.querySelector('#table tbody a').hash")
    tab.run("document.querySelector('#table tbody a').focus()")
    tab.press("Enter")
    tab.wait("document.querySelector('dialog').open")
    assert tab.run("location.hash") == first
    assert tab.run("document.activeElement.id") == "detail-title"
    tab.press("Tab")
    assert tab.run("document.activeElement.closest('dialog') !== null")
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # the focus is seen
    tab.press("Escape")
    tab.wait("!document.querySelector('dialog').open")
    tab.wait(f"document.activeElement.hash === '{first}'")  # a moment later: the page hears of it by an event
    assert tab.run("location.hash") == ""


@needs_chromium
def test_a_click_on_a_row_opens_it_and_next_follows_the_order_of_the_table(tab, report):
    tab.open(report)
    tab.click("#table tbody tr .c-rel")
    tab.wait("document.querySelector('dialog').open")
    tab.click("#next")
    assert tab.run("decodeURIComponent(location.hash.slice(1))") == tab.run(f"{SHOWN}[1].id")
    assert tab.run("document.getElementById('previous').disabled") is False
    tab.click("#close")
    tab.wait("!document.querySelector('dialog').open")


@needs_chromium
def test_a_link_opens_the_cell_with_all_that_is_known(tab, report):
    tab.open(report, fragment=NET)
    assert tab.run("document.querySelector('dialog').open")
    text = tab.run("document.querySelector('dialog').innerText")
    for words in (
        "saliency on net-0",
        "Gates",
        "AF 0.43 -> 0.22 (drop 0.21",
        "FE not compared",
        "R, most relevant",
        "cannot be shown",
    ):
        assert words in text
    assert "suites/test_fidelity.py::test_fidelity[net-0+saliency+black]" in text
    chart = "document.querySelector('dialog svg.chart')"
    assert tab.run(f"{chart}.querySelectorAll('g').length") == 3  # the cell, random, edges
    assert tab.run(f"{chart}.querySelectorAll('.dot').length") == 3 * 12
    assert tab.run("document.querySelectorAll('dialog .tiles img').length") == len(CAPTIONS)
    tab.wait("[...document.querySelectorAll('dialog img')].every(i => i.complete && i.naturalWidth > 0)")
    tab.click("dialog details summary")
    tab.wait("document.querySelectorAll('dialog details tbody tr').length === 12")
    assert tab.run("document.querySelector('dialog details tbody td').textContent") == "room-0"  # the lowest


@needs_chromium
def test_a_bound_stands_where_its_number_is(tab, report):
    tab.open(report, fragment="#cell-net-0+saliency+mean")  # the second cell: a gate of min=0.29
    assert tab.run("document.querySelector('.chart .limit').textContent") == "min 0.29"
    of = "(s) => +document.querySelector('.chart ' + s)"
    zero, one = (tab.run(f"({of}.getAttribute('x1'))('{s}')") for s in (".zero", ".grid:nth-of-type(5)"))
    bound = tab.run(f"({of}.getAttribute('x1'))('.bound')")
    assert bound - zero == pytest.approx(0.29 * (one - zero), abs=0.01)  # hundredths of a pixel


@needs_chromium
def test_marks_and_errors_are_explained(tab, report):
    tab.open(report, fragment="#cell-net-0+integrated_gradients+gaussian_noise")
    text = tab.run("document.querySelector('dialog').innerText")
    assert "judges a gradient map by itself" in text
    assert "cannot tell regions apart" in text
    assert "AF mixes relevance with the size of the change" in text
    tab.open(report, fragment="#cell-net-0+integrated_gradients+mean")
    assert BREAKOUT in tab.run("document.querySelector('dialog pre').textContent")


@needs_chromium
def test_names_stay_text(tab, report):
    tab.open(report, fragment="#cell-img-src-x-onerror-window.broken-1-+saliency+black")
    assert HOSTILE in tab.run("document.getElementById('detail-title').textContent")
    tab.open(report, fragment=NET)
    assert HOSTILE in tab.run("document.querySelector('dialog').innerText")
    assert tab.run("document.querySelectorAll('img:not(.tiles img)').length") == 0


@needs_chromium
@pytest.mark.parametrize("fragment", ["", NET])
def test_nothing_is_wider_than_a_phone(tab, report, fragment):
    tab.open(report, width=390, height=844, fragment=fragment)
    assert tab.run("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    if fragment:
        assert tab.run("document.querySelector('dialog').scrollWidth") <= 390
    else:
        assert len(column(tab, "method")) == 300


CONTRAST = """(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 ? behind(element.parentElement) : colour;
  };
  const selector = 'h1, h2, h3, p, dt, dd, td, th, button, a, label, summary, span, strong, figcaption, code, pre';
  return Math.min(...[...document.querySelectorAll(selector)].filter((e) => e.offsetParent && e.textContent.trim())
    .map((e) => {
      const [dark, bright] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => a - b);
      return (bright + 0.05) / (dark + 0.05);
    }));
})()"""


@needs_chromium
@pytest.mark.parametrize("fragment", ["", NET])
def test_text_is_legible_in_both_schemes(tab, report, fragment):
    papers = []
    for dark in (False, True):
        tab.open(report, dark=dark, fragment=fragment)
        papers.append(tab.run("getComputedStyle(document.body).backgroundColor"))
        assert tab.run(CONTRAST) >= 4.5  # WCAG AA for text of any size
    light, dark = (sum(map(int, re.findall(r"\d+", paper))) for paper in papers)
    assert light > 3 * 200
    assert dark < 3 * 60


@needs_chromium
def test_without_javascript_the_table_is_whole(tab, report):
    tab.open(report, scripts=False)
    assert len(column(tab, "model")) == 300
    assert tab.run("document.getElementById('filter').offsetParent === null")
    tab.open(report)


@needs_chromium
def test_it_prints(tab, report):
    tab.open(report)
    whole = tab.pdf()
    tab.open(report, fragment=NET)
    one = tab.pdf()
    pages = [len(re.findall(rb"/Type\s*/Page\b", pdf)) for pdf in (whole, one)]
    assert 1 <= pages[1] < pages[0]  # an open cell is printed alone
