"""Map states, inline and distributed."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from typing import Any

import pytest

from tests.local.stepfunctions_driver import Driver, machine, one


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions"))


@pytest.fixture(scope="module")
def s3(server: Any) -> Any:
    return server.client("s3")


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return name


ECHO: dict[str, Any] = {"Echo": {"Type": "Pass", "End": True}}
DISTRIBUTED = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}


def processor(states: dict[str, Any] | None = None, *, distributed: bool = False) -> dict[str, Any]:
    states = states or ECHO
    found: dict[str, Any] = {"StartAt": next(iter(states)), "States": states}
    return {**found, "ProcessorConfig": DISTRIBUTED} if distributed else found


def test_inline_over_a_path_with_a_selector(sfn: Driver) -> None:
    selector = {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value.x", "k.$": "$.k"}
    definition = one(
        Type="Map",
        InputPath="$.in",
        ItemsPath="$.list",
        ItemSelector=selector,
        ItemProcessor=processor(),
        ResultPath="$.out",
    )
    value = {"in": {"list": [{"x": 1}, {"x": 2}], "k": "c"}}
    arn = sfn.start(definition, value)
    result = json.loads(sfn.wait(arn)["output"])
    assert result == {**value, "out": [{"i": 0, "v": 1, "k": "c"}, {"i": 1, "v": 2, "k": "c"}]}
    events = sfn.events(arn)
    started = next(event for event in events if event["type"] == "MapStateStarted")
    assert started["mapStateStartedEventDetails"] == {"length": 2}
    iterations = [e["mapIterationStartedEventDetails"] for e in events if e["type"] == "MapIterationStarted"]
    assert iterations == [{"name": "Only", "index": 0}, {"name": "Only", "index": 1}]
    assert [event["type"] for event in events].count("MapIterationSucceeded") == 2
    assert events[-3]["type"] == "MapStateSucceeded"


def test_inline_with_the_legacy_fields(sfn: Driver) -> None:
    definition = one(
        Type="Map",
        ItemsPath="$",
        Parameters={"v.$": "$$.Map.Item.Value"},
        Iterator={"StartAt": "Echo", "States": ECHO},
    )
    assert sfn.output(definition, [1, 2]) == [{"v": 1}, {"v": 2}]


def test_inline_with_jsonata(sfn: Driver) -> None:
    inside = {
        "Double": {
            "Type": "Pass",
            "Output": "{% $states.input * $factor + $states.context.Map.Item.Index %}",
            "End": True,
        }
    }
    definition = machine(
        "JSONata",
        Set={"Type": "Pass", "Assign": {"factor": 2}},
        Each={
            "Type": "Map",
            "Items": "{% $states.input.list[$ > 1] %}",
            "MaxConcurrency": "{% 1 %}",
            "ItemProcessor": processor(inside),
            "Assign": {"total": "{% $sum($states.result) %}"},
            "Output": {"all": "{% $states.result %}"},
        },
        Done={
            "Type": "Succeed",
            "Output": "{% $merge([$states.input, {'total': $total}]) %}",
        },
    )
    assert sfn.output(definition, {"list": [1, 2, 3]}) == {"all": [4, 7], "total": 11}


def test_an_item_selector_with_jsonata(sfn: Driver) -> None:
    selector = {
        "i": "{% $states.context.Map.Item.Index %}",
        "v": "{% $states.context.Map.Item.Value & $states.input.s %}",
    }
    definition = one(
        "JSONata", Type="Map", Items="{% $states.input.l %}", ItemSelector=selector, ItemProcessor=processor()
    )
    assert sfn.output(definition, {"l": ["a", "b"], "s": "!"}) == [{"i": 0, "v": "a!"}, {"i": 1, "v": "b!"}]


def test_items_of_an_object(sfn: Driver) -> None:
    definition = one("JSONata", Type="Map", Items="{% $states.input %}", ItemProcessor=processor())
    assert sfn.output(definition, {"a": 1, "b": 2}) == [{"Key": "a", "Value": 1}, {"Key": "b", "Value": 2}]


def test_an_iteration_sees_the_item_as_it_came(sfn: Driver) -> None:
    inside = {"I": {"Type": "Pass", "Parameters": {"item.$": "$$.Map.Item", "in.$": "$"}, "End": True}}
    definition = one(Type="Map", ItemSelector={"v.$": "$$.Map.Item.Value"}, ItemProcessor=processor(inside))
    assert sfn.output(definition, ["a"]) == [
        {"item": {"Index": 0, "Value": "a", "Source": "STATE_DATA"}, "in": {"v": "a"}}
    ]
    key = {"I": {"Type": "Pass", "Output": "{% $states.context.Map.Item.Key %}", "End": True}}
    definition = one("JSONata", Type="Map", Items="{% $states.input %}", ItemProcessor=processor(key))
    assert sfn.output(definition, {"x": 1, "y": 2}) == ["x", "y"]


def test_no_items(sfn: Driver) -> None:
    assert sfn.output(one(Type="Map", ItemProcessor=processor()), []) == []


@pytest.mark.parametrize(
    ("language", "error"), [("JSONPath", "States.Runtime"), ("JSONata", "States.QueryEvaluationError")]
)
def test_items_must_be_an_array(sfn: Driver, language: str, error: str) -> None:
    found, cause = sfn.failure(one(language, Type="Map", ItemProcessor=processor()), 5)
    assert found == error
    assert "array" in cause


def test_concurrency_is_bounded(sfn: Driver) -> None:
    definition = one(
        Type="Map",
        MaxConcurrencyPath="$.most",
        ItemsPath="$.list",
        ItemProcessor=processor({"W": {"Type": "Wait", "Seconds": 1, "End": True}}),
    )
    arns = [sfn.start(definition, {"list": [1, 2, 3, 4], "most": most}) for most in (2, 0)]
    lasted = [
        (execution["stopDate"] - execution["startDate"]).total_seconds()
        for execution in (sfn.wait(arn) for arn in arns)
    ]
    assert 1.9 < lasted[0] < 3.8
    assert 0.9 < lasted[1] < 1.9


def failing(number: int) -> dict[str, Any]:
    """Return states that fail for one item."""
    return {
        "Check": {
            "Type": "Choice",
            "Choices": [{"Variable": "$", "NumericEquals": number, "Next": "Bad"}],
            "Default": "Good",
        },
        "Bad": {"Type": "Fail", "Error": "Mine", "Cause": "so"},
        "Good": {"Type": "Succeed"},
    }


def test_a_failed_iteration_fails_the_state_with_its_error(sfn: Driver) -> None:
    definition = machine(
        Each={
            "Type": "Map",
            "ItemProcessor": processor(failing(2)),
            "Catch": [{"ErrorEquals": ["Mine"], "Next": "Done"}],
        },
        Done={"Type": "Succeed"},
    )
    arn = sfn.start(definition, [1, 2, 3])
    assert json.loads(sfn.wait(arn)["output"]) == {"Error": "Mine", "Cause": "so"}
    types = sfn.types(arn)
    assert "MapIterationFailed" in types
    assert "MapStateFailed" in types


def test_retries_repeat_the_whole_map(sfn: Driver) -> None:
    retry = [{"ErrorEquals": ["Mine"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    arn = sfn.start(one(Type="Map", ItemProcessor=processor(failing(2)), Retry=retry), [1, 2])
    assert sfn.wait(arn)["error"] == "Mine"
    assert sfn.types(arn).count("MapStateStarted") == 2


def read(bucket: str, config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    reader: dict[str, Any] = {
        "Resource": "arn:aws:states:::s3:getObject",
        "Parameters": {"Bucket": bucket, "Key.$": "$.key"},
    }
    if config is not None:
        reader["ReaderConfig"] = config
    return one(Type="Map", ItemReader=reader, ItemProcessor=processor(distributed=True), **fields)


FILES: dict[str, tuple[bytes, dict[str, Any] | None, Any]] = {
    "array.json": (b'[{"a": 1}, 2]', None, [{"a": 1}, 2]),
    "typed.json": (b"[1, 2, 3]", {"InputType": "JSON", "MaxItems": 2}, [1, 2]),
    "nested.json": (
        b'{"x": {"y": [1, 2]}}',
        {"InputType": "JSON", "ItemsPointer": "/x/y"},
        [1, 2],
    ),
    "lines.jsonl": (b'{"a": 1}\n\n{"a": 2}\n', {"InputType": "JSONL"}, [{"a": 1}, {"a": 2}]),
    "head.csv": (
        b'\xef\xbb\xbfa,b\n1,"x, y"\n2\n',
        {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
        [{"a": "1", "b": "x, y"}, {"a": "2", "b": ""}],
    ),
    "bare.csv": (
        b"1|x\n2|y\n3|z\n",
        {
            "InputType": "CSV",
            "CSVHeaderLocation": "GIVEN",
            "CSVHeaders": ["n", "t"],
            "CSVDelimiter": "PIPE",
            "MaxItemsPath": "$.most",
        },
        [{"n": "1", "t": "x"}, {"n": "2", "t": "y"}],
    ),
}


def test_every_kind_of_file_is_read(sfn: Driver, s3: Any, bucket: str) -> None:
    arns = {}
    for key, (body, config, _) in FILES.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        arns[key] = sfn.start(read(bucket, config), {"key": key, "most": 2})
    for key, arn in arns.items():
        execution = sfn.wait(arn)
        assert execution["status"] == "SUCCEEDED", (key, execution)
        assert json.loads(execution["output"]) == FILES[key][2], key


def test_objects_are_listed(sfn: Driver, s3: Any, bucket: str) -> None:
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"listed/{number}", Body=b"x" * number)
    definition = one(
        "JSONata",
        Type="Map",
        ItemReader={
            "Resource": "arn:aws:states:::s3:listObjectsV2",
            "Arguments": {"Bucket": bucket, "Prefix": "{% $states.input.prefix %}"},
            "ReaderConfig": {"MaxItems": "{% 2 %}"},
        },
        ItemProcessor=processor(distributed=True),
    )
    found = sfn.output(definition, {"prefix": "listed/"})
    assert [(item["Key"], item["Size"]) for item in found] == [("listed/0", 0), ("listed/1", 1)]
    assert set(found[0]) == {"Etag", "Key", "LastModified", "Size", "StorageClass"}


def test_an_inventory_is_read_through_its_manifest(sfn: Driver, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="inv/1.csv.gz", Body=gzip.compress(b'"b","k1","1"\n"b","k2","2"\n'))
    manifest = {
        "destinationBucket": f"arn:aws:s3:::{bucket}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size",
        "files": [{"key": "inv/1.csv.gz"}],
    }
    s3.put_object(Bucket=bucket, Key="inv/manifest.json", Body=json.dumps(manifest).encode())
    found = sfn.output(read(bucket, {"InputType": "MANIFEST", "MaxItems": 5}), {"key": "inv/manifest.json"})
    assert found == [{"Bucket": "b", "Key": "k1", "Size": "1"}, {"Bucket": "b", "Key": "k2", "Size": "2"}]


@pytest.mark.parametrize(
    ("body", "config", "words"),
    [
        (None, None, "NoSuchKey"),
        (b"5", None, "non-iterable"),
        (b"{", None, "cannot be read"),
        (b"[]", {"InputType": "PARQUET"}, "PARQUET"),
        (b'{"x": 1}', {"InputType": "JSON", "ItemsPointer": "/y"}, "'y'"),
    ],
)
def test_a_file_that_cannot_be_read(
    sfn: Driver, s3: Any, bucket: str, body: bytes | None, config: dict[str, Any] | None, words: str
) -> None:
    key = f"bad/{uuid.uuid4().hex}"
    if body is not None:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    definition = read(bucket, config, Catch=[{"ErrorEquals": ["States.ItemReaderFailed"], "Next": "Done"}])
    definition["States"]["Done"] = {"Type": "Succeed"}
    assert words in sfn.output(definition, {"key": key})["Cause"]


def distributed(states: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return one(Type="Map", ItemProcessor=processor(states, distributed=True), **fields)


def test_batches(sfn: Driver) -> None:
    by_count = {"MaxItemsPerBatch": 2, "BatchInput": {"c.$": "$[0]"}}
    by_size = {"MaxInputBytesPerBatch": 30}
    assert sfn.output(distributed(ItemBatcher=by_count), [1, 2, 3]) == [
        {"BatchInput": {"c": 1}, "Items": [1, 2]},
        {"BatchInput": {"c": 1}, "Items": [3]},
    ]
    sizes = [len(batch["Items"]) for batch in sfn.output(distributed(ItemBatcher=by_size), ["x" * 6] * 5)]
    assert sum(sizes) == 5
    assert len(sizes) > 1
    jsonata = one(
        "JSONata",
        Type="Map",
        ItemBatcher={
            "MaxItemsPerBatch": "{% $states.input[0] %}",
            "BatchInput": {"f": "{% $states.input[0] %}"},
        },
        ItemProcessor=processor(distributed=True),
    )
    assert sfn.output(jsonata, [3, 4, 5, 6])[1] == {"BatchInput": {"f": 3}, "Items": [6]}


def test_children_are_executions_of_their_own(sfn: Driver) -> None:
    inside = {"Echo": {"Type": "Pass", "Parameters": {"id.$": "$$.Execution.Id", "v.$": "$"}, "End": True}}
    arn = sfn.start(distributed(inside, Label="Each"), [1, 2])
    output = json.loads(sfn.wait(arn)["output"])
    assert [item["v"] for item in output] == [1, 2]
    assert all(":execution:" in item["id"] and "/Each:" in item["id"] for item in output)
    assert len({item["id"] for item in output} | {arn}) == 3
    run = sfn.client.list_map_runs(executionArn=arn)["mapRuns"][0]
    assert run["executionArn"] == arn
    report = sfn.client.describe_map_run(mapRunArn=run["mapRunArn"])
    assert (report["status"], report["itemCounts"]["succeeded"], report["itemCounts"]["total"]) == (
        "SUCCEEDED",
        2,
        2,
    )
    children = sfn.client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
    assert {child["executionArn"] for child in children} == {item["id"] for item in output}
    child = sfn.client.describe_execution(executionArn=output[0]["id"])
    assert (child["status"], child["input"], child["mapRunArn"]) == ("SUCCEEDED", "1", run["mapRunArn"])
    machine_arn = sfn.wait(arn)["stateMachineArn"]
    assert len(sfn.client.list_executions(stateMachineArn=machine_arn)["executions"]) == 1
    types = sfn.types(arn)
    assert types[2:6] == ["MapStateStarted", "MapRunStarted", "MapRunSucceeded", "MapStateSucceeded"]


TOLERANCES: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"ToleratedFailureCount": 1}, True),
    ({"ToleratedFailurePercentage": 50}, True),
    ({"ToleratedFailurePercentage": 10}, False),
    ({"ToleratedFailureCountPath": "$[0]"}, True),
]


@pytest.mark.parametrize(("fields", "tolerated"), TOLERANCES)
def test_failures_are_tolerated_as_far_as_the_state_says(
    sfn: Driver, fields: dict[str, Any], tolerated: bool
) -> None:
    execution = sfn.run(distributed(failing(2), **fields), [1, 2, 3])
    if tolerated:
        assert json.loads(execution["output"]) == [1, 3]
    else:
        assert execution["error"] == "States.ExceedToleratedFailureThreshold"


def write(bucket: str, **config: str) -> dict[str, Any]:
    writer: dict[str, Any] = {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": {"Bucket": bucket, "Prefix": "results"},
    }
    return {**writer, "WriterConfig": config} if config else writer


def test_results_are_written_with_a_manifest(sfn: Driver, s3: Any, bucket: str) -> None:
    def load(key: str) -> Any:
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    definition = distributed(failing(2), ResultWriter=write(bucket), ToleratedFailureCount=1)
    result = sfn.output(definition, [1, 2, 3])
    place = result["ResultWriterDetails"]
    assert place["Bucket"] == bucket
    assert place["Key"].startswith("results/")
    manifest = load(place["Key"])
    assert (manifest["DestinationBucket"], manifest["MapRunArn"]) == (bucket, result["MapRunArn"])
    files = manifest["ResultFiles"]
    assert files["PENDING"] == []
    good, bad = load(files["SUCCEEDED"][0]["Key"]), load(files["FAILED"][0]["Key"])
    assert [(item["Input"], item["Output"], item["Status"]) for item in good] == [
        ("1", "1", "SUCCEEDED"),
        ("3", "3", "SUCCEEDED"),
    ]
    assert [(item["Input"], item["Error"], item["Cause"]) for item in bad] == [("2", "Mine", "so")]
    assert sfn.client.describe_map_run(mapRunArn=result["MapRunArn"])["itemCounts"]["resultsWritten"] == 3


def test_results_are_transformed(sfn: Driver, s3: Any, bucket: str) -> None:
    definition = distributed(ResultWriter=write(bucket, Transformation="FLATTEN", OutputType="JSONL"))
    place = sfn.output(definition, [[1, 2], [3]])["ResultWriterDetails"]
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=place["Key"])["Body"].read())
    key = manifest["ResultFiles"]["SUCCEEDED"][0]["Key"]
    assert key.endswith(".jsonl")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"1\n2\n3"
    inline = distributed(ResultWriter={"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSON"}})
    assert sfn.output(inline, [[1, 2], [3]]) == [1, 2, 3]


def test_results_that_cannot_be_written(sfn: Driver) -> None:
    error, cause = sfn.failure(distributed(ResultWriter=write("no-such-bucket")), [1])
    assert error == "States.ResultWriterFailed"
    assert "no-such-bucket" in cause


def test_a_run_is_limited_changed_and_stopped(sfn: Driver) -> None:
    waiting = {"W": {"Type": "Wait", "Seconds": 600, "End": True}}
    arn = sfn.start(distributed(waiting, MaxConcurrency=1), [1, 2, 3])
    while not (runs := sfn.client.list_map_runs(executionArn=arn)["mapRuns"]):
        time.sleep(0.02)
    run = runs[0]["mapRunArn"]

    def running() -> int:
        return int(sfn.client.describe_map_run(mapRunArn=run)["executionCounts"]["running"])

    end = time.monotonic() + 60
    while running() != 1 and time.monotonic() < end:
        time.sleep(0.02)
    assert running() == 1
    sfn.client.update_map_run(mapRunArn=run, maxConcurrency=2, toleratedFailureCount=1)
    while running() != 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert running() == 2
    sfn.client.stop_execution(executionArn=arn)
    report = sfn.client.describe_map_run(mapRunArn=run)
    assert (report["status"], report["executionCounts"]["aborted"]) == ("ABORTED", 3)
    with pytest.raises(sfn.client.exceptions.ResourceNotFound):
        sfn.client.describe_map_run(mapRunArn=run + "x")


def test_a_thousand_children(sfn: Driver) -> None:
    started = time.monotonic()
    assert sfn.output(distributed(), list(range(1000))) == list(range(1000))
    assert time.monotonic() - started < 40
