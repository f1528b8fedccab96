"""The report about a candidate: what it says, what it looks like, and what must not break it."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path

import pytest

from evaluation import plots, report
from tests.browser import Browser, needs_chromium
from tests.containers.exam import imagined

TEN = [str(digit) for digit in range(10)]
RIGHT = {"champion": 0.9, "old": 0.96, "new": 0.965}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report") / "new"
    report.write(directory, "new", imagined(TEN, 400, RIGHT, newest=0.1))
    return directory / "report.html"


@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_shows_its_plots_without_a_network(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width)

    browser.check_alone(page)
    pictures = browser.evaluate(
        "[...document.images].map(i => [i.alt, i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert [name for name, *_ in pictures] == ["accuracy", "classes", "confusion", "reliability"]
    assert all(whole and own > 700 and shown > 250 for _, whole, own, shown in pictures)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_says_why(page: Path) -> None:
    html = page.read_text("utf-8")
    assert "Recommended: put new into service" in html
    for said in ("accurate enough", "better by the margin", "surely better", "no class forgotten"):
        assert said in html
    assert html.count(">met</span>") == 4
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_a_candidate_that_fails_is_told_apart_from_one_that_is_second() -> None:
    evaluation = imagined(TEN, 400, {"champion": 0.9, "old": 0.98, "new": 0.4})
    texts = {name: report.render(name, evaluation, {}) for name in ("old", "new")}
    assert "Recommended: put old into service" in texts["old"]
    assert "Not recommended: old is the better choice" in texts["new"]
    assert "below the threshold 0.85" in texts["new"]
    both = imagined(TEN, 400, {"champion": 0.7, "old": 0.95, "new": 0.99})
    assert "old passes every rule; new is the more accurate of the two" in report.render("old", both, {})
    none = imagined(TEN, 400, {"old": 0.4, "new": 0.4})
    text = report.render("new", none, {})
    assert "Not recommended, and the other candidate is not either" in text
    assert "No model is in service: there is nothing to beat." in text


def test_labels_are_text_everywhere(tmp_path: Path) -> None:
    hostile = ["$x_{", "<img src=x onerror=alert(1)>", "\\frac{", "日本", "a" * 128, "%s {0}"]
    evaluation = imagined([*hostile, *map(str, range(30))], 300, {"old": 0.9, "new": 0.7})

    report.write(tmp_path, "new", evaluation)

    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<img ") == 4
    assert "&lt;img src=x" in html
    assert "日本" in html
    assert "could not be drawn" not in html


def test_two_hundred_classes_are_drawn_small_enough() -> None:
    right = {"champion": 0.8, "old": 0.83, "new": 0.9}
    evaluation = imagined([f"species number {index:03}" for index in range(200)], 3000, right)
    drawn = plots.draw(evaluation, "new")
    assert sorted(drawn) == ["accuracy.png", "classes.png", "confusion.png", "reliability.png"]
    for content in drawn.values():
        width, height = struct.unpack(">II", content[16:24])
        assert len(content) < 200_000
        assert width < 1000
        assert height < 1000


def test_a_plot_that_cannot_be_drawn_does_not_cost_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = imagined(["a", "b"], 20, {"old": 0.9, "new": 0.9})
    del evaluation["models"]["new"]["calibration"]

    with caplog.at_level(logging.ERROR):
        report.write(tmp_path, "new", evaluation)

    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "The plots could not be drawn: KeyError" in (tmp_path / "report.html").read_text("utf-8")
    assert "the plots about new cannot be drawn" in caplog.text
