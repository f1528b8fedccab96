"""Each kind of finding has a broken machine that shows it; a sound machine has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.asl_lint import lint

SOUND: dict[str, Any] = {
    "QueryLanguage": "JSONata",
    "StartAt": "Claim",
    "States": {
        "Claim": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": "${ClaimArn}", "Payload": "{% $states.input %}"},
            "TimeoutSeconds": 60,
            "Retry": [
                {
                    "ErrorEquals": [
                        "TransientAwsError",
                        "Lambda.ServiceException",
                        "Lambda.TooManyRequestsException",
                    ],
                    "MaxDelaySeconds": 60,
                    "JitterStrategy": "FULL",
                }
            ],
            "Catch": [
                {"ErrorEquals": ["ClaimLost"], "Next": "Refuse"},
                {"ErrorEquals": ["States.ALL"], "Next": "Refuse"},
            ],
            "Next": "Poll",
        },
        "Poll": {"Type": "Wait", "Seconds": "{% ${PollSeconds} %}", "Next": "Describe"},
        "Describe": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sagemaker:describePipelineExecution",
            "Arguments": {"PipelineExecutionArn": "{% $states.input.arn %}"},
            "TimeoutSeconds": 60,
            "Retry": [
                {
                    "ErrorEquals": ["SageMaker.ResourceNotFoundException", "States.Timeout"],
                    "MaxDelaySeconds": 60,
                    "JitterStrategy": "FULL",
                }
            ],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Refuse"}],
            "Next": "Check",
        },
        "Check": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.done %}", "Next": "Finish"}],
            "Default": "Poll",
        },
        "Finish": {"Type": "Succeed"},
        "Refuse": {"Type": "Fail"},
    },
}
SUBSTITUTIONS: dict[str, object] = {
    "ClaimArn": "arn:aws:lambda:us-east-1:123456789012:function:claim",
    "PollSeconds": 300,
}
ERRORS = {"TransientAwsError", "ClaimLost"}


def found(definition: dict[str, Any], substitutions: dict[str, object] = SUBSTITUTIONS) -> dict[str, str]:
    """Return the kinds of the findings with a place of each."""
    return {
        item.kind: item.location for item in lint(definition, substitutions=substitutions, error_names=ERRORS)
    }


def test_a_sound_machine_has_no_findings() -> None:
    assert lint(SOUND, substitutions=SUBSTITUTIONS, error_names=ERRORS) == []


States = dict[str, Any]


def _set(state: str, **fields: Any) -> Callable[[States], None]:
    return lambda states: states[state].update(fields)


def _drop(state: str, field: str) -> Callable[[States], None]:
    return lambda states: states[state].pop(field)


def _retry(**fields: Any) -> Callable[[States], None]:
    return lambda states: states["Claim"]["Retry"][0].update(fields)


def _unretry(field: str) -> Callable[[States], None]:
    return lambda states: states["Claim"]["Retry"][0].pop(field)


BREAKS: dict[str, tuple[Callable[[States], Any], str, str]] = {
    "dangling Next": (_set("Poll", Next="Nowhere"), "dangling", "/States/Poll/Next"),
    "dangling Default": (_set("Check", Default="Nowhere"), "dangling", "/States/Check/Default"),
    "dangling Catch": (
        lambda states: states["Claim"]["Catch"][1].update(Next="Nowhere"),
        "dangling",
        "/States/Claim/Catch[1]/Next",
    ),
    "dangling rule": (
        lambda states: states["Check"]["Choices"][0].update(Next="Nowhere"),
        "dangling",
        "/States/Check/Choices[0]/Next",
    ),
    "unreachable": (lambda states: states.update(Lost={"Type": "Succeed"}), "unreachable", "/States/Lost"),
    "JSONPath field": (_set("Claim", ResultPath=None), "query-language", "/States/Claim/ResultPath"),
    "JSONPath parameters": (_set("Claim", Parameters={}), "query-language", "/States/Claim/Parameters"),
    "JSONPath rule": (
        lambda states: states["Check"]["Choices"][0].update(Variable="$.x"),
        "query-language",
        "/States/Check/Choices[0]/Variable",
    ),
    "JSONPath catch": (
        lambda states: states["Claim"]["Catch"][1].update(ResultPath="$.e"),
        "query-language",
        "/States/Claim/Catch[1]/ResultPath",
    ),
    "missing substitution": (
        _set("Claim", Output="${Other}"),
        "substitution-missing",
        "/States/Claim/Output",
    ),
    "seconds": (_set("Poll", Seconds="${PollSeconds}"), "seconds", "/States/Poll/Seconds"),
    "expression": (_set("Claim", Output="{% $a + %}"), "expression", "/States/Claim/Output"),
    "error nobody raises": (
        _retry(ErrorEquals=["TransientAwsErorr"]),
        "unknown-error",
        "/States/Claim/Retry[0]/ErrorEquals",
    ),
    "error of another service": (
        _retry(ErrorEquals=["SageMaker.ResourceNotFoundException"]),
        "unknown-error",
        "/States/Claim/Retry[0]/ErrorEquals",
    ),
    "error that the API does not have": (
        lambda states: states["Describe"]["Retry"][0].update(ErrorEquals=["SageMaker.NoSuchThingException"]),
        "unknown-error",
        "/States/Describe/Retry[0]/ErrorEquals",
    ),
    "function's error on an API call": (
        lambda states: states["Describe"]["Retry"][0].update(ErrorEquals=["ClaimLost"]),
        "unknown-error",
        "/States/Describe/Retry[0]/ErrorEquals",
    ),
    "no timeout": (_drop("Claim", "TimeoutSeconds"), "no-timeout", "/States/Claim"),
    "no retry": (_drop("Claim", "Retry"), "no-retry", "/States/Claim"),
    "retry on everything": (_retry(ErrorEquals=["States.ALL"]), "no-retry", "/States/Claim/Retry[0]"),
    "no jitter": (_unretry("JitterStrategy"), "no-jitter", "/States/Claim/Retry[0]"),
    "no cap": (_unretry("MaxDelaySeconds"), "no-cap", "/States/Claim/Retry[0]"),
    "no catch": (_drop("Describe", "Catch"), "no-catch", "/States/Describe"),
    "catch of one error": (lambda states: states["Claim"]["Catch"].pop(), "no-catch", "/States/Claim"),
    "unknown field": (_set("Claim", Timeout=5), "structure", "/States/Claim/Timeout"),
    "unknown type": (_set("Poll", Type="Sleep"), "structure", "/States/Poll/Type"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found_where_it_is(name: str) -> None:
    damage, kind, place = BREAKS[name]
    definition = copy.deepcopy(SOUND)
    damage(definition["States"])
    assert found(definition).get(kind) == place


def test_a_dangling_start_is_found() -> None:
    assert found({**SOUND, "StartAt": "Nowhere"})["dangling"] == "/StartAt"


def test_a_machine_without_end_is_found() -> None:
    loop = {
        "StartAt": "A",
        "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}},
    }
    assert found(loop, {})["no-terminal"] == "/States"


def test_a_substitution_that_nothing_uses_is_found() -> None:
    assert found(SOUND, {**SUBSTITUTIONS, "Spare": 1}) == {"substitution-unused": "/"}


@pytest.mark.parametrize("field", ["Arguments", "Output", "Items"])
def test_jsonata_fields_under_jsonpath_are_found(field: str) -> None:
    kinds = {"Arguments": "Task", "Output": "Pass", "Items": "Map"}
    state: dict[str, Any] = {"Type": kinds[field], field: {}, "End": True}
    if field == "Arguments":
        state["Resource"] = "arn:aws:states:::aws-sdk:s3:listBuckets"
    if field == "Items":
        state["ItemProcessor"] = {"StartAt": "P", "States": {"P": {"Type": "Succeed"}}}
    assert found({"StartAt": "A", "States": {"A": state}}, {})["query-language"] == f"/States/A/{field}"


def test_an_expression_under_jsonpath_is_found() -> None:
    state = {"Type": "Pass", "Assign": {"x": ["{% $states.input %}"]}, "End": True}
    assert found({"StartAt": "A", "States": {"A": state}}, {}) == {"query-language": "/States/A/Assign/x[0]"}


def test_machines_inside_are_checked_too() -> None:
    inner = copy.deepcopy(SOUND)
    del inner["QueryLanguage"]
    inner["States"]["Refuse"]["Error"] = "Refused"
    del inner["States"]["Claim"]["TimeoutSeconds"]
    both = {
        "Type": "Parallel",
        "Branches": [inner],
        "Catch": [{"ErrorEquals": ["Refused", "ClaimLost"], "Next": "Over"}],
        "Next": "Over",
    }
    outer = {
        "QueryLanguage": "JSONata",
        "StartAt": "Both",
        "States": {"Both": both, "Over": {"Type": "Succeed"}},
    }
    assert found(outer) == {"no-timeout": "/States/Both/Branches[0]/States/Claim"}
