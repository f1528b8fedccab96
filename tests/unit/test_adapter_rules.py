"""What adapters decide without AWS: errors by code, attribute values."""

from __future__ import annotations

import re
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from truthloop.aws.attributes import from_item, to_attribute, to_item
from truthloop.aws.calls import translate
from truthloop.errors import AwsRequestFailed, ConditionFailed, TransientAwsError
from truthloop.retraining.decision import Evaluation, StepResult, judge_failure, metadata_value, shorten


def client_error(code: str, status: int = 400, **more: Any) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "Rate exceeded, try again, not found"},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(response, "Operation")


def cancelled(*codes: str) -> ClientError:
    reasons = [{"Code": code} for code in codes]
    return client_error("TransactionCanceledException", CancellationReasons=reasons)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("ThrottlingException"), TransientAwsError),
        (client_error("SlowDown", 503), TransientAwsError),
        (client_error("Whatever", 500), TransientAwsError),
        (client_error("Whatever", 429), TransientAwsError),
        (client_error("ConditionalRequestConflict", 409), TransientAwsError),
        (client_error("ConditionalCheckFailedException"), ConditionFailed),
        (client_error("PreconditionFailed", 412), ConditionFailed),
        (client_error("ValidationException"), AwsRequestFailed),
        (client_error("AccessDeniedException", 403), AwsRequestFailed),
        (
            client_error(
                "TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}]
            ),
            TransientAwsError,
        ),
        (cancelled("ConditionalCheckFailed", "TransactionConflict"), ConditionFailed),
        (cancelled("ValidationError"), AwsRequestFailed),
    ],
)
def test_errors_are_named_by_code_and_status(error: ClientError, kind: type) -> None:
    assert type(translate(error)) is kind


def test_items_survive_the_table() -> None:
    item = {"a": 1, "b": 1.5, "c": "x", "d": True, "e": None, "f": [1, {"g": -2}], "h": {}, "i": 0.1 + 0.2}
    assert from_item(to_item(item)) == item
    with pytest.raises(TypeError, match="set cannot be stored"):
        to_attribute({1})
    with pytest.raises(TypeError, match="SS"):
        from_item({"a": {"SS": ["x"]}})


def test_the_gate_is_a_result_and_every_other_step_a_failure() -> None:
    gate = StepResult("FailGate", "Failed", "below", None)
    train = StepResult("TrainOld", "Failed", "out of memory", None)
    assert judge_failure((gate,), "") == ("REJECTED_BY_GATE", "below")
    assert judge_failure((train, gate), "")[0] == "FAILED"
    assert judge_failure((), "no capacity") == ("FAILED", "no capacity")


def test_metadata_fits_the_registry() -> None:
    evaluation = Evaluation({"new": 0.5}, None, "x" * 400)
    metadata = evaluation.metadata("old")
    assert "accuracy" not in metadata
    assert len(metadata["reason"]) == 256
    assert metadata["recommended"] == "false"
    assert shorten("abc", 2) == "a…"


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        (
            "new gains +0.1594 on the champion (95 % interval +0.1111 to +0.2077)",
            "new gains +0.1594 on the champion - 95 percent interval +0.1111 to +0.2077",
        ),
        (
            "old has an accuracy of 0.8, below the threshold 0.85; new gains +0.1 …\n",
            "old has an accuracy of 0.8 below the threshold 0.85 - new gains +0.1",
        ),
        ("größer @ s3://b/k", "größer @ s3://b/k"),
        ("(x" * 300, "- x" * 85 + "-"),
        ("'\"!", "none"),
    ],
)
def test_a_metadata_value_is_what_the_registry_takes(reason: str, value: str) -> None:
    # Given: the pattern of CustomerMetadataValue, whose Unicode classes Python spells otherwise
    service = botocore.session.get_session().get_service_model("sagemaker")
    pattern = service.shape_for("CustomerMetadataValue").metadata["pattern"]
    assert pattern == r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}"
    # Then
    assert metadata_value(reason) == value
    assert re.fullmatch(r"[\w .:/=+\-@]{1,256}", value)


def test_every_recommendation_can_be_written_on_its_package() -> None:
    for recommended in ("new", None):
        values = Evaluation({"old": 0.9}, recommended, "gains (95 %); short of zero").metadata("new")
        assert all(re.fullmatch(r"[\w .:/=+\-@]{1,256}", value) for value in values.values()), values
