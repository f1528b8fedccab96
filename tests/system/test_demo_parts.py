"""The parts of the demo, each alone: data, requests, corrections, checks."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from PIL import Image
from rich.console import Console

from demo import closing, corrections, digits, traffic
from demo.cloud import Cloud, wait_for
from demo.deployment import PARAMETERS
from demo.display import Display
from demo.errors import DemoError, TookTooLongError
from demo.process import MemoryMeter
from demo.program import CHECK_FAILED, conclude, options
from demo.result import Point, Result
from demo.story import AUDITED, CORRECTED
from demo.traffic import Client, Reply
from local.ports import free_port

RECORDED = Path(__file__).with_name("demo_result.json")


def reply(label: str, said: str, at: float = 0.0, model: str = "g1/old", error: str = "") -> Reply:
    digit = replace(digits.images()[0], label=label)
    return Reply(f"drift-{label}-{at}", digit, said, model, at, 0.01, error)


# -- data -----------------------------------------------------------------------------------------------


def test_the_parts_are_disjoint_and_cover_everything() -> None:
    parts = {part: {digit.example_id for digit in digits.split(part)} for part, _ in digits.SHARES}

    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 1797
    assert sum(share for _, share in digits.SHARES) == pytest.approx(1)
    # Enough mistakes to correct, even if a lucky model is right about half of the drifted digits.
    assert len(parts["drift"]) > 2 * CORRECTED
    assert all({d.label for d in digits.split(part)} == set("0123456789") for part, _ in digits.SHARES)


def test_drift_changes_the_picture_and_never_the_label() -> None:
    for digit in digits.split("exam")[:20]:
        changed = digits.drifted(digit)

        assert (changed.label, changed.example_id) == (digit.label, digit.example_id)
        before, after = np.asarray(digit.image, dtype=int), np.asarray(changed.image, dtype=int)
        assert np.array_equal(after, np.round(digits.PAPER - digits.INK * before)), "dark ink on grey paper"
        assert Image.open(io.BytesIO(changed.png)).size == (digits.SIZE, digits.SIZE)


def test_the_base_set_holds_only_the_base_and_a_smoke_test_example_of_each_label() -> None:
    objects = digits.base_objects()

    frames = [polars.read_parquet(io.BytesIO(b)) for key, b in objects.items() if key.startswith("base/")]
    assert all(frame.columns == ["example_id", "image", "label"] for frame in frames)
    ids = {example for frame in frames for example in frame["example_id"]}
    assert ids == {digit.example_id for digit in digits.split("base")}
    assert {key.split("/")[1] for key in objects if key.startswith("smoke-test/")} == set("0123456789")


# -- corrections ----------------------------------------------------------------------------------------


def test_the_corrections_are_evidence_only_all_together() -> None:
    # The story holds for any interleaving only if no trigger can start a run before all are accepted.
    import json

    assert int(json.loads(PARAMETERS.read_text())["MinimumNewLabels"]) == AUDITED + CORRECTED


def test_mistakes_are_corrected_and_the_rubbish_stands_between_them() -> None:
    replies = [reply("7", "1", at) for at in range(10)] + [
        reply("7", "7", 99.0),
        reply("7", "", 98.0, "", "gone"),
    ]

    uploads = corrections.corrections(replies, 3)

    assert [upload.good for upload in uploads] == [4, 3, 3]
    assert [upload.bad for upload in uploads] == [0, 0, 5]
    lines = uploads[-1].body.splitlines()
    assert len(lines) == 8
    assert b"drift-7" in lines[0]
    assert b"drift-7" in lines[-1]


def test_an_audit_labels_right_and_wrong_answers() -> None:
    upload = corrections.audit([reply("7", "1"), reply("7", "7", 1.0)], "audit.jsonl")

    assert (upload.good, upload.bad) == (2, 0)
    assert upload.body.count(b'"source": "audit"') == 2


# -- requests -------------------------------------------------------------------------------------------


def test_a_request_that_fails_is_a_reply_with_an_error() -> None:
    client = Client(Cloud(f"http://localhost:{free_port()}").client("sagemaker-runtime"), "nobody")

    answer = client.send(digits.images()[0], "request-1")

    assert "Could not connect" in answer.error
    assert not answer.right
    assert client.replies == [answer]


def test_accuracy_counts_a_failed_request_as_wrong() -> None:
    assert traffic.accuracy([reply("1", "1"), reply("1", "", error="gone")]) == 0.5
    assert traffic.accuracy([]) == 0.0


def test_points_never_span_two_models_and_a_short_rest_joins_its_batch() -> None:
    replies = [reply("1", "2", float(at)) for at in range(12)]
    replies += [reply("1", "1", float(at), "g2/new") for at in range(12, 20)]

    found = traffic.points(replies, "unlabelled", 10)

    assert [(point.accuracy, point.requests, point.model) for point in found] == [
        (0.0, 12, "g1/old"),
        (1.0, 8, "g2/new"),
    ]


def test_confusion_counts_true_against_predicted() -> None:
    matrix = traffic.confusion(
        [reply("1", "1"), reply("1", "2"), reply("2", "2"), reply("2", "", error="gone")]
    )

    assert matrix.labels == ("1", "2")
    assert matrix.counts == ((1, 1), (0, 1))
    assert matrix.accuracy == pytest.approx(2 / 3)


# -- waiting and measuring ------------------------------------------------------------------------------


def test_waiting_ends_with_what_did_not_happen() -> None:
    with pytest.raises(TookTooLongError, match="the sunrise did not happen within 0 s"):
        wait_for("the sunrise", lambda: None, 0.05, interval=0.01)


def test_the_memory_of_all_processes_is_measured() -> None:
    meter = MemoryMeter()

    meter.sample()

    assert meter.peak_bytes > 20 * 2**20
    assert meter.samples[0][1] == meter.peak_bytes


# -- the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: r.accuracy.update(drifted=r.accuracy["everyday"]), "drift hurts"),
        (lambda r: r.counts.update(retrains_after_drift=2), "exactly one retrain"),
        (lambda r: r.counts.update(retrains_after_drift=0), "exactly one retrain"),
        (lambda r: r.accuracy.update(exam_after=r.accuracy["exam_before"]), "the accuracy rose"),
        (lambda r: r.counts.update(failed_requests=1), "no request failed"),
        (lambda r: r.counts.update(models_in_stream=1), "no request failed"),
        (lambda r: r.quarantine.pop(), "bad records are in quarantine"),
    ],
)
def test_a_check_that_fails_is_named_and_the_exit_code_says_so(
    tmp_path: Path, change: Any, name: str
) -> None:
    result = Result.read(RECORDED)
    change(result)
    closing.check(result)
    out = io.StringIO()

    code = conclude(result, tmp_path, Display(Console(file=out, width=120)))

    assert code == CHECK_FAILED
    assert f"the demo failed its own check: {name}" in out.getvalue()
    assert [check.name for check in result.checks if not check.passed] == [name]
    assert not Result.read(tmp_path / "result.json").passed
    assert (tmp_path / "report.html").exists()


def test_a_run_that_checks_nothing_has_not_passed() -> None:
    assert not Result().passed


def test_the_recorded_run_passes(tmp_path: Path) -> None:
    result = Result.read(RECORDED)
    closing.check(result)
    out = io.StringIO()

    assert conclude(result, tmp_path, Display(Console(file=out, width=120))) == 0
    assert "corrections in, a better model out" in out.getvalue()


def test_an_instance_type_without_a_price_is_not_guessed() -> None:
    from demo.costs import row

    unknown = row("training jobs", "ml.p99.huge", 10.0)

    assert (unknown.hourly_usd, unknown.usd) == (None, None)
    result = Result(costs=[unknown, row("training jobs", "ml.p3.8xlarge", 3600.0)])
    assert [cells[-1] for cells in closing.cost_rows(result)] == ["n/a", "14.6880", "14.6880"]


# -- the display ----------------------------------------------------------------------------------------


def test_without_a_terminal_each_line_is_plain_and_stamped() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100)) as display:
        display.chapter("One")
        display.doing("waiting")
        display.done("reached [this]")
        display.failure(DemoError("it broke [here]", ["the last", "two lines"]))

    text = out.getvalue()
    assert "\x1b" not in text
    assert "waiting" not in text, "what is waited for is for terminals"
    assert "s ✓ reached [this]" in text
    assert "The demo stopped: it broke [here]\n    the last\n    two lines" in text


def test_on_a_terminal_what_is_waited_for_is_shown() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=100)) as display:
        display.doing("waiting for the pipeline")
        wait_for("a refresh", lambda: True if "waiting for the pipeline" in out.getvalue() else None, 60)

    assert out.getvalue()


def test_the_port_comes_from_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "4567")
    assert options([]).port == 4567
    assert options(["--port", "5000"]).port == 5000
    monkeypatch.setenv("PORT", "nonsense")
    with pytest.raises(SystemExit):
        options([])
    monkeypatch.delenv("PORT")
    assert options([]).port is None


def test_points_of_the_recorded_run_lie_within_it() -> None:
    result = Result.read(RECORDED)

    assert all(isinstance(point, Point) for point in result.points)
    assert all(result.started_at < point.time < result.finished_at for point in result.points)
    assert Counter(point.stream for point in result.points).keys() == {"everyday", "drifted", "unlabelled"}
