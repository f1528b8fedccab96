"""The report of a recorded run in a real browser: no errors, no requests, all visible, also on a phone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.report import render
from demo.result import Check, Result

RECORDED = Path(__file__).with_name("demo_result.json")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_EXEC = """
import fcntl, os, sys
# Out of the way first: the pipes' own numbers may be 3 or 4.
reads, writes = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its commands from descriptor 3 and writes its answers to 4."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on PATH: the report is not looked at"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(Result.read(RECORDED)), encoding="utf-8")
    return path


class Browser:
    """A headless Chromium, driven through its debugging pipe (no network port, no further package)."""

    def __init__(self, profile: Path) -> None:
        (child_reads, self._to), (self._from, child_writes) = os.pipe(), os.pipe()
        assert CHROMIUM
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _EXEC, str(child_reads), str(child_writes), CHROMIUM),
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"),
                "--remote-debugging-pipe",
            ],
            pass_fds=(child_reads, child_writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from, 1 << 16)
            assert more, "Chromium ended"
            self._rest += more
        first, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message

    def wait_for(self, event: str) -> None:
        while not any(item["method"] == event for item in self.events):
            self._next()

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def show(self, page: Path, width: int) -> None:
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        for descriptor in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_no_errors_and_no_requests(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width)

    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert [url for url in asked if url.startswith("file:")] == [page.as_uri()]
    complaints = [
        event
        for event in browser.events
        if event["method"] == "Runtime.exceptionThrown"
        or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
    ]
    assert complaints == []


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
