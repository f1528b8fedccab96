"""What states do with their input, in both query languages."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.local.stepfunctions_driver import Driver, machine, one


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions"))


DATA = {"a": 1, "b": {"c": [10, 20, 30]}, "name": "Ada", "items": [{"p": 5, "k": "x"}, {"p": 7, "k": "y"}]}

PATH_CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "result into the input": ({"Result": 5, "ResultPath": "$.x.y"}, {**DATA, "x": {"y": 5}}),
    "result discarded": ({"Result": 5, "ResultPath": None}, DATA),
    "input path": ({"InputPath": "$.b.c[1]"}, 20),
    "input path null": ({"InputPath": None}, {}),
    "output path": ({"OutputPath": "$.b"}, {"c": [10, 20, 30]}),
    "output path null": ({"OutputPath": None}, {}),
    "negative index": ({"InputPath": "$.b.c[-1]"}, 30),
    "quoted step": ({"InputPath": "$['b']['c'][0]"}, 10),
    "wildcard": ({"InputPath": "$.items[*].p"}, [5, 7]),
    "filter": ({"InputPath": "$.items[?(@.p > 6)]"}, [{"p": 7, "k": "y"}]),
    "filter text": ({"InputPath": "$.items[?(@.k == 'x')].p"}, [5]),
    "filter none": ({"InputPath": "$.items[?(@.p > 60)]"}, []),
    "slice": ({"InputPath": "$.b.c[0:2]"}, [10, 20]),
    "descent": ({"InputPath": "$..p"}, [5, 7]),
    "length": ({"Parameters": {"n.$": "$.b.c.length()"}}, {"n": 3}),
    "context": (
        {"Parameters": {"s.$": "$$.State.Name", "n.$": "$$.State.RetryCount"}},
        {"s": "Only", "n": 0},
    ),
    "nested template": (
        {"Parameters": {"l": [{"v.$": "$.a"}, 2, "$.a"], "deep": {"d": {"e.$": "$.name"}}}},
        {"l": [{"v": 1}, 2, "$.a"], "deep": {"d": {"e": "Ada"}}},
    ),
}

INTRINSICS: dict[str, Any] = {
    "States.Format('Hi {}, {} \\'q\\' \\{\\}', $.name, $.b)": "Hi Ada, {\"c\":[10,20,30]} 'q' {}",
    "States.Array($.a, 'x', true, null, 2.5)": [1, "x", True, None, 2.5],
    "States.ArrayPartition($.b.c, 2)": [[10, 20], [30]],
    "States.ArrayContains($.b.c, 20)": True,
    "States.ArrayRange(1, 9, 2)": [1, 3, 5, 7, 9],
    "States.ArrayGetItem($.b.c, 1)": 20,
    "States.ArrayLength($.b.c)": 3,
    "States.ArrayUnique(States.Array(1, 1, 2, '1'))": [1, 2, "1"],
    "States.Base64Encode($.name)": "QWRh",
    "States.Base64Decode('QWRh')": "Ada",
    "States.Hash('input data', 'SHA-1')": "aaff4a450a104cd177d28d18d74485e8cae074b7",
    "States.JsonMerge($.b, $.items[0], false)": {"c": [10, 20, 30], "p": 5, "k": "x"},
    "States.StringToJson('{\"x\": 1}')": {"x": 1},
    "States.JsonToString($.b)": '{"c":[10,20,30]}',
    "States.MathRandom(1, 2)": 1,
    "States.MathAdd(States.ArrayLength($.b.c), -1)": 2,
    "States.StringSplit('1,2;3', ',;')": ["1", "2", "3"],
}

JSONATA_CASES: dict[str, tuple[Any, Any]] = {
    "literal": (
        'plain "text" with \\ and \n newline and $ and {% no',
        'plain "text" with \\ and \n newline and $ and {% no',
    ),
    "text": ("{% 'tab\\t \"q\" \\\\ ü' %}", 'tab\t "q" \\ ü'),
    "nested": ({"x": ["{% $states.input.a %}", {"y": "{% $states.input.name %}"}]}, {"x": [1, {"y": "Ada"}]}),
    "integral float": ("{% 4 / 2 %}", 2),
    "float": ("{% 1 / 4 %}", 0.25),
    "null": ("{% null %}", None),
    "null inside": ("{% {'n': $states.input.none} %}", {"n": None}),
    "predicate on itself": ("{% $states.input.b.c[$ > 15] %}", [20, 30]),
    "context variable in a map": ("{% $states.input.b.c.($ * 2) %}", [20, 40, 60]),
    "sort": ("{% $states.input.items^(>p).k %}", ["y", "x"]),
    "group": ("{% $states.input.items{k: p} %}", {"x": 5, "y": 7}),
    "function": ("{% ($f := function($x) { $x + 1 }; $map($states.input.b.c, $f)) %}", [11, 21, 31]),
    "regex": ("{% $replace('a1b22', /[0-9]+/, '#') %}", "a#b#"),
    "transform": ("{% $states.input.b ~> |$|{'d': 1}| %}", {"c": [10, 20, 30], "d": 1}),
    "partition": ("{% $partition([1..5], 2) %}", [[1, 2], [3, 4], [5]]),
    "range": ("{% $range(0, 10, 5) %}", [0, 5, 10]),
    "range of one": ("{% $range(3, 3, 1) %}", [3]),
    "hash": ("{% $hash('input data', 'SHA-1') %}", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
    "random seeded": ("{% $random(7) = $random(7) %}", True),
    "random": ("{% $random() < 1 %}", True),
    "parse": ("{% $parse('{\"a\": [1, null]}') %}", {"a": [1, None]}),
    "uuid": ("{% $length($uuid()) %}", 36),
    "context": ("{% $states.context.State.Name %}", "Only"),
    "empty array": ("{% [] %}", []),
    "boolean": ("{% $exists($states.input.none) %}", True),
    "big number": ("{% 12345678901234 %}", 12345678901234),
    "comment": ("{% /* why */ 1 %}", 1),
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [("$.[0]", 7), ("$.[*]", [7, 8]), ("$.[?(@ > 7)]", [8]), ("$.[-1:]", [8]), ("$..[0]", [7])],
)
def test_a_dot_before_a_bracket_is_read_as_none(sfn: Driver, path: str, expected: Any) -> None:
    assert sfn.output(one(Type="Pass", Parameters={"v.$": path}), [7, 8]) == {"v": expected}


@pytest.mark.parametrize("name", PATH_CASES)
def test_a_pass_state_with_jsonpath(sfn: Driver, name: str) -> None:
    fields, expected = PATH_CASES[name]
    assert sfn.output(one(Type="Pass", **fields), DATA) == expected


@pytest.mark.parametrize("call", INTRINSICS)
def test_an_intrinsic_function(sfn: Driver, call: str) -> None:
    assert sfn.output(one(Type="Pass", Parameters={"r.$": call}), DATA) == {"r": INTRINSICS[call]}


def test_uuids_differ(sfn: Driver) -> None:
    result = sfn.output(one(Type="Pass", Parameters={"a.$": "States.UUID()", "b.$": "States.UUID()"}))
    assert result["a"] != result["b"]
    assert re.fullmatch(r"[0-9a-f-]{36}", result["a"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("States.ArrayGetItem($.b.c, 9)", "index 9"),
        ("States.StringToJson('{')", "failed"),
        ("States.Format('{}')", "placeholders"),
        ("States.Hash('x', 'CRC')", "CRC"),
        ("States.ArrayPartition($.b.c, 0)", "chunk size"),
        ("States.JsonMerge($.b, $.b, true)", "shallow"),
        ("States.ArrayRange(0, 5000, 1)", "1000"),
        ("States.ArrayRange(0, 5, 0)", "step"),
    ],
)
def test_a_failed_intrinsic_function_says_why(sfn: Driver, call: str, words: str) -> None:
    error, cause = sfn.failure(one(Type="Pass", Parameters={"r.$": call}), DATA)
    assert error == "States.IntrinsicFailure"
    assert words in cause
    assert "'Only'" in cause


@pytest.mark.parametrize("name", JSONATA_CASES)
def test_a_jsonata_output(sfn: Driver, name: str) -> None:
    output, expected = JSONATA_CASES[name]
    assert sfn.output(one("JSONata", Type="Pass", Output=output), {**DATA, "none": None}) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("$states.input.absent", "returned nothing (undefined)"),
        ("$states.result", "returned nothing (undefined)"),
        ("$nosuch", "returned nothing (undefined)"),
        ("1 + 'x'", "threw an error during evaluation. T2002"),
        ("$sum", "unsupported result type"),
        ("$eval('1')", "$eval is not supported"),
        ("$", "returned nothing"),
        ("($f := function($n) { 1 + $f($n) }; $f(1))", "recurses too deeply"),
        ("$range(1, 5000, 1)", "1000"),
        ("$range(1, 5, 0)", "step"),
        ("$hash('x', 'CRC')", "CRC"),
        ("$partition([1], 0)", "chunk size"),
        ("$error('mine')", "mine"),
        ("$parse('{')", "threw an error"),
    ],
)
def test_a_failed_expression_names_itself(sfn: Driver, expression: str, words: str) -> None:
    arn = sfn.start(one("JSONata", Type="Pass", Output={"x": "{% " + expression + " %}"}), DATA)
    execution = sfn.wait(arn)
    assert (execution["status"], execution["error"]) == ("FAILED", "States.QueryEvaluationError")
    assert f"The JSONata expression '{expression}' specified for the field 'Output/x'" in execution["cause"]
    assert words in execution["cause"]
    failed = next(event for event in sfn.events(arn) if event["type"] == "EvaluationFailed")
    assert failed["evaluationFailedEventDetails"]["location"] == "Output/x"


def test_a_string_result_is_valid_json(sfn: Driver) -> None:
    assert sfn.output(one(Type="Pass", Result='a "quoted" \\ text')) == 'a "quoted" \\ text'


def test_variables_are_assigned_together_and_read_later(sfn: Driver) -> None:
    definition = machine(
        "JSONata",
        First={"Type": "Pass", "Assign": {"x": 1, "y": "{% $states.input.a %}", "n": None}},
        Second={
            "Type": "Pass",
            "Assign": {"x": "{% $x + 1 %}", "old": "{% $x %}"},
            "Output": "{% $x %}",
        },
        Third={
            "Type": "Succeed",
            "Output": "{% {'x': $x, 'y': $y, 'old': $old, 'out': $states.input, 'n': $n} %}",
        },
    )
    arn = sfn.start(definition, {"a": [1, None]})
    assert sfn.wait(arn)["status"] == "SUCCEEDED"
    exited = [e["stateExitedEventDetails"] for e in sfn.events(arn) if e["type"] == "PassStateExited"]
    assert exited[0]["assignedVariables"] == {"x": "1", "y": "[1,null]", "n": "null"}
    assert json.loads(sfn.wait(arn)["output"]) == {"x": 2, "y": [1, None], "old": 1, "out": 1, "n": None}


def test_variables_in_jsonpath(sfn: Driver) -> None:
    definition = machine(
        First={"Type": "Pass", "Assign": {"v": {"w.$": "$.a", "k": 2}, "s.$": "$$.State.Name"}},
        Second={"Type": "Pass", "Parameters": {"w.$": "$v.w", "k.$": "States.MathAdd($v.k, 1)", "s.$": "$s"}},
    )
    assert sfn.output(definition, DATA) == {"w": 1, "k": 3, "s": "First"}


def test_one_jsonata_state_in_a_jsonpath_machine(sfn: Driver) -> None:
    definition = machine(
        First={"Type": "Pass", "QueryLanguage": "JSONata", "Output": {"d": "{% $states.input.a * 2 %}"}},
        Second={"Type": "Pass", "InputPath": "$.d"},
    )
    assert sfn.output(definition, DATA) == 2


def test_the_context_object(sfn: Driver) -> None:
    definition = one("JSONata", Type="Pass", Output="{% $states.context %}")
    arn = sfn.start(definition, DATA)
    execution = sfn.wait(arn)
    context = json.loads(execution["output"])
    about = context["Execution"]
    assert (about["Id"], about["Name"], about["Input"]) == (arn, execution["name"], DATA)
    assert about["RoleArn"].endswith(":role/machine")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(stamp, about["StartTime"])
    assert re.fullmatch(stamp, context["State"]["EnteredTime"])
    assert context["StateMachine"] == {
        "Id": execution["stateMachineArn"],
        "Name": execution["stateMachineArn"].rsplit(":", 1)[1],
    }


RULES: list[tuple[dict[str, Any], bool]] = [
    ({"Variable": "$.name", "StringEquals": "Ada"}, True),
    ({"Variable": "$.name", "StringLessThan": "B"}, True),
    ({"Variable": "$.name", "StringGreaterThanEquals": "B"}, False),
    ({"Variable": "$.name", "StringEqualsPath": "$.name"}, True),
    ({"Variable": "$.name", "StringMatches": "A*a"}, True),
    ({"Variable": "$.name", "StringMatches": "A\\*"}, False),
    ({"Variable": "$.name", "NumericEquals": 1}, False),
    ({"Variable": "$.a", "NumericEquals": 1.0}, True),
    ({"Variable": "$.a", "NumericLessThanEqualsPath": "$.b.c[0]"}, True),
    ({"Variable": "$.a", "StringEquals": "1"}, False),
    ({"Variable": "$.yes", "BooleanEquals": True}, True),
    ({"Variable": "$.yes", "BooleanEqualsPath": "$.yes"}, True),
    ({"Variable": "$.yes", "NumericEquals": 1}, False),
    ({"Variable": "$.when", "TimestampGreaterThan": "2026-01-01T00:00:00Z"}, True),
    ({"Variable": "$.when", "TimestampEquals": "2026-11-22T11:00:00+00:00"}, True),
    ({"Variable": "$.name", "TimestampEquals": "2026-11-22T11:00:00Z"}, False),
    ({"Variable": "$.none", "IsNull": True}, True),
    ({"Variable": "$.a", "IsNull": False}, True),
    ({"Variable": "$.absent", "IsPresent": False}, True),
    ({"Variable": "$.a", "IsPresent": True}, True),
    ({"Variable": "$.a", "IsNumeric": True}, True),
    ({"Variable": "$.yes", "IsNumeric": True}, False),
    ({"Variable": "$.name", "IsString": True}, True),
    ({"Variable": "$.yes", "IsBoolean": True}, True),
    ({"Variable": "$.when", "IsTimestamp": True}, True),
    ({"And": [{"Variable": "$.a", "IsPresent": True}, {"Variable": "$.a", "NumericEquals": 2}]}, False),
    ({"Or": [{"Variable": "$.a", "NumericEquals": 2}, {"Variable": "$.a", "NumericEquals": 1}]}, True),
    ({"Not": {"Variable": "$.a", "NumericEquals": 1}}, False),
    ({"Variable": "$$.State.Name", "StringEquals": "Only"}, True),
]


def test_every_choice_rule(sfn: Driver) -> None:
    """All rules in one machine: each decides one bit of the output."""
    value = {**DATA, "yes": True, "none": None, "when": "2026-11-22T11:00:00Z"}
    states: dict[str, Any] = {}
    for index, (rule, _) in enumerate(RULES):
        name = "Only" if rule.get("Variable") == "$$.State.Name" else f"Rule{index}"
        states[name] = {
            "Type": "Choice",
            "Choices": [{**rule, "Next": f"Yes{index}"}],
            "Default": f"No{index}",
        }
        following = "Done"
        if index + 1 < len(RULES):
            following = (
                "Only" if RULES[index + 1][0].get("Variable") == "$$.State.Name" else f"Rule{index + 1}"
            )
        for word, bit in (("Yes", True), ("No", False)):
            states[f"{word}{index}"] = {
                "Type": "Pass",
                "Result": bit,
                "ResultPath": f"$.r{index}",
                "Next": following,
            }
    states["Done"] = {"Type": "Succeed"}
    definition = {"StartAt": "Rule0", "States": states}
    result = sfn.output(definition, value)
    wrong = [rule for index, (rule, expected) in enumerate(RULES) if result[f"r{index}"] is not expected]
    assert wrong == []


def test_a_choice_without_match_fails(sfn: Driver) -> None:
    rule = {"Variable": "$.a", "NumericEquals": 2, "Next": "Done"}
    definition = machine(Pick={"Type": "Choice", "Choices": [rule]}, Done={"Type": "Succeed"})
    assert sfn.failure(definition, DATA)[0] == "States.NoChoiceMatched"


def test_a_choice_on_a_missing_variable_fails(sfn: Driver) -> None:
    rule = {"Variable": "$.zz", "NumericEquals": 2, "Next": "Done"}
    definition = machine(Pick={"Type": "Choice", "Choices": [rule]}, Done={"Type": "Succeed"})
    error, cause = sfn.failure(definition, DATA)
    assert error == "States.Runtime"
    assert "$.zz" in cause


def test_a_jsonata_choice_assigns_and_shapes_its_output(sfn: Driver) -> None:
    definition = machine(
        "JSONata",
        Pick={
            "Type": "Choice",
            "Choices": [
                {"Condition": False, "Next": "Lost"},
                {
                    "Condition": "{% $states.input.a > 0 %}",
                    "Next": "Done",
                    "Assign": {"way": "first"},
                    "Output": {"kept": "{% $states.input.name %}"},
                },
            ],
            "Default": "Lost",
        },
        Done={"Type": "Succeed", "Output": "{% $merge([$states.input, {'way': $way}]) %}"},
        Lost={"Type": "Fail"},
    )
    assert sfn.output(definition, DATA) == {"kept": "Ada", "way": "first"}


def test_a_jsonata_choice_takes_its_default(sfn: Driver) -> None:
    definition = machine(
        "JSONata",
        Pick={
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.a > 5 %}", "Next": "Lost"}],
            "Default": "Done",
            "Assign": {"way": "default"},
            "Output": "{% 'chosen' %}",
        },
        Done={"Type": "Succeed", "Output": "{% $states.input & ' ' & $way %}"},
        Lost={"Type": "Fail"},
    )
    assert sfn.output(definition, DATA) == "chosen default"


def test_a_condition_that_is_no_boolean_fails(sfn: Driver) -> None:
    definition = machine(
        "JSONata",
        Pick={"Type": "Choice", "Choices": [{"Condition": "{% 1 %}", "Next": "Done"}], "Default": "Done"},
        Done={"Type": "Succeed"},
    )
    error, cause = sfn.failure(definition)
    assert error == "States.QueryEvaluationError"
    assert "not a boolean" in cause


def test_waits_last_as_long_as_they_say(sfn: Driver) -> None:
    """All ways to say one second, at the same time."""
    moment = int(time.time()) + 2
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    value = {"s": 1, "f": 1.0, "t": soon}
    arns = {
        name: sfn.start(definition, value)
        for name, definition in {
            "Seconds": one(Type="Wait", Seconds=1),
            "SecondsPath": one(Type="Wait", SecondsPath="$.s"),
            "JSONata": one("JSONata", Type="Wait", Seconds="{% $states.input.s %}"),
            "TimestampPath": one(Type="Wait", TimestampPath="$.t"),
            "Timestamp": one("JSONata", Type="Wait", Timestamp="{% $states.input.t %}"),
            "past": one(Type="Wait", Timestamp="2020-01-01T00:00:00Z"),
            "float": one(Type="Wait", SecondsPath="$.f"),
            "zero": one("JSONata", Type="Wait", Seconds="{% 0 %}"),
        }.items()
    }
    for name, arn in arns.items():
        execution = sfn.wait(arn)
        assert execution["status"] == "SUCCEEDED", name
        assert execution["output"] == execution["input"].replace(" ", "")
        lasted = (execution["stopDate"] - execution["startDate"]).total_seconds()
        if name.startswith("Timestamp"):
            assert execution["stopDate"].timestamp() >= moment
            assert lasted < 20
        elif name in ("past", "zero"):
            assert lasted < 20, name
        else:
            assert 0.99 <= lasted < 20, (name, lasted)


@pytest.mark.parametrize(
    ("fields", "language", "error"),
    [
        ({"Seconds": "{% 'soon' %}"}, "JSONata", "States.QueryEvaluationError"),
        ({"Seconds": "{% -1 %}"}, "JSONata", "States.QueryEvaluationError"),
        ({"Timestamp": "{% 'today' %}"}, "JSONata", "States.QueryEvaluationError"),
        ({"SecondsPath": "$.name"}, "JSONPath", "States.Runtime"),
        ({"TimestampPath": "$.name"}, "JSONPath", "States.Runtime"),
        ({"SecondsPath": "$.absent"}, "JSONPath", "States.Runtime"),
    ],
)
def test_a_wait_without_sense_fails(sfn: Driver, fields: dict[str, Any], language: str, error: str) -> None:
    assert sfn.failure(one(language, Type="Wait", **fields), DATA)[0] == error


def test_parallel_branches_run_together(sfn: Driver) -> None:
    branches = [one(Type="Wait", Seconds=2) for _ in range(3)]
    for branch in branches:
        del branch["QueryLanguage"]
    branches.append({"StartAt": "P", "States": {"P": {"Type": "Pass", "Result": "quick", "End": True}}})
    for index, branch in enumerate(branches[:3]):
        branch["States"] = {f"W{index}": branch["States"]["Only"]}
        branch["StartAt"] = f"W{index}"
    definition = one(
        Type="Parallel",
        Branches=branches,
        Parameters={"v.$": "$.a"},
        ResultSelector={"all.$": "$"},
        ResultPath="$.r",
    )
    arn = sfn.start(definition, {"a": 1})
    execution = sfn.wait(arn)
    assert json.loads(execution["output"]) == {"a": 1, "r": {"all": [{"v": 1}, {"v": 1}, {"v": 1}, "quick"]}}
    assert (execution["stopDate"] - execution["startDate"]).total_seconds() < 5.9  # not 6
    types = sfn.types(arn)
    assert types[1:3] == ["ParallelStateEntered", "ParallelStateStarted"]
    assert types[-3:] == ["ParallelStateSucceeded", "ParallelStateExited", "ExecutionSucceeded"]


def test_a_failed_branch_ends_the_others_at_once(sfn: Driver) -> None:
    definition = machine(
        "JSONata",
        Both={
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "Slow", "States": {"Slow": {"Type": "Wait", "Seconds": 600, "End": True}}},
                {
                    "StartAt": "Bad",
                    "States": {"Bad": {"Type": "Fail", "Error": "Mine", "Cause": "{% 'so' %}"}},
                },
            ],
            "Catch": [
                {
                    "ErrorEquals": ["Mine"],
                    "Next": "Done",
                    "Output": "{% $states.errorOutput %}",
                    "Assign": {"c": "{% $states.errorOutput.Cause %}"},
                }
            ],
        },
        Done={"Type": "Succeed", "Output": {"e": "{% $states.input %}", "c": "{% $c %}"}},
    )
    started = time.monotonic()
    arn = sfn.start(definition)
    assert json.loads(sfn.wait(arn)["output"]) == {"e": {"Error": "Mine", "Cause": "so"}, "c": "so"}
    assert time.monotonic() - started < 60
    types = sfn.types(arn)
    assert types.index("WaitStateAborted") < types.index("ParallelStateFailed")


def test_a_stopped_execution_ends_where_it_is(sfn: Driver) -> None:
    waiting = {"StartAt": "Slow", "States": {"Slow": {"Type": "Wait", "Seconds": 600, "End": True}}}
    arn = sfn.start(one(Type="Parallel", Branches=[waiting]))
    while "WaitStateEntered" not in sfn.types(arn):
        time.sleep(0.01)
    sfn.client.stop_execution(executionArn=arn)
    assert sfn.types(arn)[-2:] == ["WaitStateEntered", "ExecutionAborted"]


def test_errors_may_be_named_like_those_of_the_service(sfn: Driver) -> None:
    quorum = {"StartAt": "Q", "States": {"Q": {"Type": "Fail", "Error": "States.QuorumMet"}}}
    definition = machine(
        Both={
            "Type": "Parallel",
            "Branches": [quorum],
            "Catch": [{"ErrorEquals": ["States.QuorumMet"], "Next": "Done"}],
            "End": True,
        },
        Done={"Type": "Succeed"},
    )
    assert sfn.output(definition) == {"Error": "States.QuorumMet"}
    found = sfn.client.validate_state_machine_definition(
        definition=json.dumps(definition), severity="WARNING"
    )
    assert (found["result"], found["diagnostics"][0]["code"]) == ("OK", "RESERVED_ERROR_NAME")


def test_branches_read_outer_variables_but_do_not_set_them(sfn: Driver) -> None:
    def with_branch(state: dict[str, Any]) -> dict[str, Any]:
        return machine(
            "JSONata",
            Set={"Type": "Pass", "Assign": {"x": 1}},
            Both={
                "Type": "Parallel",
                "Branches": [{"StartAt": "In", "States": {"In": {**state, "End": True}}}],
            },
        )

    reading = with_branch({"Type": "Pass", "Assign": {"own": 5}, "Output": "{% $x %}"})
    assert sfn.output(reading) == [1]
    error, cause = sfn.failure(with_branch({"Type": "Pass", "Assign": {"x": 2}}))
    assert error == "States.Runtime"
    assert "outer scope" in cause


def test_a_result_path_that_does_not_fit_fails(sfn: Driver) -> None:
    error, _ = sfn.failure(one(Type="Pass", Result=1, ResultPath="$.name.x"), DATA)
    assert error == "States.ResultPathMatchFailure"


def test_a_missing_path_names_itself(sfn: Driver) -> None:
    error, cause = sfn.failure(one(Type="Pass", Parameters={"x.$": "$.zz"}), DATA)
    assert error == "States.Runtime"
    assert "'$.zz'" in cause
    error, cause = sfn.failure(one(Type="Pass", OutputPath="$.zz"), DATA)
    assert error == "States.Runtime"


def test_too_large_an_output_fails(sfn: Driver) -> None:
    definition = one(
        "JSONata",
        Type="Pass",
        Output="{% $pad('', 140000, 'x') & $pad('', 140000, 'y') %}",
    )
    error, cause = sfn.failure(definition)
    assert error == "States.DataLimitExceeded"
    assert "'Only'" in cause
