"""The report that the machine mails is the report of the decision that the log keeps."""

from __future__ import annotations

import json
from typing import Any

from truthloop.retraining.report import report

APPROVED = "arn:aws:sagemaker:us-east-1:123456789012:model-package/truthloop-models/8"


def released(world: Any, claim: Any, **parts: Any) -> Any:
    event = dict.fromkeys(("outcome", "message", "preflight", "dataset", "decision", "error"))
    keys = {"execution": claim["holder"], "generation": claim["generation"]}
    return world.run("release_run", {**event, **keys, **parts})


def decision(approve: str | None = None) -> dict[str, Any]:
    package = {"arn": APPROVED, "candidate": "new", "recommended": True, "accuracy": 0.97}
    return {"outcome": "SUCCEEDED", "message": "m", "modelPackages": [package], "approve": approve}


def plain(item: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(item, default=float)))


def test_the_report_is_that_of_the_item_in_the_log(world: Any) -> None:
    claim = world.claim("one", {"force": True, "reason": "why not"})
    preflight = {"verdict": "START", "evidence": {"newLabels": 160, "newPerLabel": {"7": 160}}, "rules": []}
    answer = released(world, claim, preflight=preflight, decision=decision())
    (item,) = world.decisions()
    assert answer["report"] == report(plain(item))
    assert "- manual, forced at " in answer["report"]
    assert "- 160 new labels: 7 × 160" in answer["report"]


def test_a_retry_after_the_release_reports_the_same(world: Any) -> None:
    claim = world.claim("one")
    first = released(world, claim, decision=decision())
    world.later(minutes=5)
    again = released(world, claim, decision=decision())
    assert again == first
    assert "- manual at " in again["report"]
    assert len(world.decisions()) == 1


def test_a_generation_that_was_released_by_another_is_told_without_a_report(world: Any) -> None:
    claim = world.claim("one")
    released(world, claim, decision=decision())
    answer = released(world, {**claim, "holder": f"{claim['holder']}-other"}, message="too late")
    assert (answer["released"], answer["report"]) == (True, "too late")


def test_an_automatic_approval_is_in_the_log_and_a_failed_one_is_not(world: Any) -> None:
    approved = released(world, world.claim("one"), decision=decision(APPROVED))
    assert "approved automatically" in approved["report"]
    failed = released(
        world,
        world.claim("two"),
        decision=decision(APPROVED),
        message="m The automatic approval failed",
        error={"Error": "SageMaker.ConflictException", "Cause": "no"},
    )
    assert "approved automatically" not in failed["report"]
    assert f"--model-package-arn {APPROVED}" in failed["report"]
