"""The report of a recorded run in a real browser: no errors, no requests, all visible, also on a phone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from demo.report import render
from demo.result import Check, Result
from tests.browser import Browser, needs_chromium

RECORDED = Path(__file__).with_name("demo_result.json")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(Result.read(RECORDED)), encoding="utf-8")
    return path


@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_no_errors_and_no_requests(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width)

    browser.check_alone(page)


@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_the_plots_and_the_digits_are_visible(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width)

    plots = browser.evaluate(
        "[...document.querySelectorAll('svg.plot')].map(p => p.getBoundingClientRect())"
        ".filter(box => box.width > 0).map(box => [box.width, box.height])"
    )
    assert len(plots) == 3, "accuracy, timeline, confusion: each in the one form that fits the width"
    assert all(w > width * 0.6 and h > 150 for w, h in plots)
    # An SVG that cannot be drawn has no marks in it.
    marks = browser.evaluate(
        "[...document.querySelectorAll('svg.plot')].filter(p => p.getBoundingClientRect().width > 0)"
        ".map(p => p.querySelectorAll('path, text').length)"
    )
    assert all(count > 30 for count in marks)
    assert browser.evaluate(
        "document.images.length >= 10"
        " && [...document.images].every(image => image.complete && image.naturalWidth == 32)"
    )


@needs_chromium
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_sticks_out(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width)

    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    sticking_out = browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('svg'))"
        f".filter(e => e.getBoundingClientRect().right > {width} + 0.5)"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert sticking_out == []


@needs_chromium
def test_text_on_a_phone_is_large_enough_to_read(browser: Browser, page: Path) -> None:
    browser.show(page, 360)

    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('svg.plot text')].map(t => t.getBoundingClientRect())"
        ".filter(box => box.height > 0).map(box => box.height))"
    )
    assert smallest >= 8


def test_the_page_says_what_came_of_it() -> None:
    result = Result.read(RECORDED)

    html = render(result)

    assert f"{result.accuracy['exam_before']:.0%}" in html
    assert f"{result.accuracy['exam_after']:.0%}" in html
    for decision in result.decisions:
        assert decision["outcome"] in html
    for item in result.quarantine:
        assert item["reason"] in html
    assert "$" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_a_failed_check_is_shown_as_failed_and_hostile_text_stays_text() -> None:
    result = Result.read(RECORDED)
    result.checks = [Check("the accuracy rose", False, "it <script>alert(1)</script> did not")]
    hostile = {"reason": "NOT_JSON", "detail": "<b>bold</b>", "record": "<img src=x onerror=alert(1)>"}
    result.quarantine = [hostile]
    result.moments = [replace(result.moments[0], title="<i>start</i>")]

    html = render(result)

    assert "<li class='failed'>" in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "<b>bold</b>" not in html
    assert "<i>start</i>" not in html


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    result = Result.read(RECORDED)

    result.write(tmp_path / "result.json")

    assert Result.read(tmp_path / "result.json") == result
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is True
