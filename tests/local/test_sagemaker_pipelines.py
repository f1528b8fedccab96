"""Pipelines of the embedded AWS: the definition language, real jobs, tokens, stop, retry, events."""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.sagemaker_driver import PROBE, RESOURCES, ROLE, Driver, unique, wait_until
from truthloop.aws.jobs import SageMakerJobs
from truthloop.aws.pipeline import SageMakerPipeline
from truthloop.retraining.decision import is_costless, judge_failure
from truthloop.steps.training_jobs import read_steps

Json = dict[str, Any]


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


def parameter(name: str, kind: str = "String", default: Any = None) -> Json:
    entry: Json = {"Name": name, "Type": kind}
    return entry if default is None else {**entry, "DefaultValue": default}


def get(reference: str) -> Json:
    return {"Get": reference}


def join(on: str, *values: Any) -> Json:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def processing(aws: Driver, name: str, *arguments: Any, **more: Any) -> Json:
    request = aws.processing_request("x", *arguments)
    del request["ProcessingJobName"]
    uri = join("/", aws.uri("runs"), get("Execution.PipelineExecutionId"), name)
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = uri
    return {"Name": name, "Type": "Processing", "Arguments": request, **more}


def training(aws: Driver, name: str, **hyper: Any) -> Json:
    request = aws.training_request("x", HyperParameters=hyper)
    del request["TrainingJobName"]
    return {"Name": name, "Type": "Training", "Arguments": request}


def fail(name: str, message: Any) -> Json:
    return {"Name": name, "Type": "Fail", "Arguments": {"ErrorMessage": message}}


def condition(name: str, test: Json | list[Json], then: list[Json], otherwise: list[Json]) -> Json:
    tests = test if isinstance(test, list) else [test]
    return {
        "Name": name,
        "Type": "Condition",
        "Arguments": {"Conditions": tests, "IfSteps": then, "ElseSteps": otherwise},
    }


def compare(kind: str, left: Any, right: Any) -> Json:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


def definition(*steps: Json, parameters: list[Json] | None = None) -> Json:
    return {"Version": "2020-12-01", "Metadata": {}, "Parameters": parameters or [], "Steps": list(steps)}


def create(aws: Driver, document: Json | str, **more: Any) -> str:
    name = unique("pipeline")
    text = document if isinstance(document, str) else json.dumps(document)
    aws.sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=text,
        RoleArn=ROLE,
        ClientRequestToken=uuid.uuid4().hex,
        **more,
    )
    return name


def start(aws: Driver, name: str, **parameters: str) -> str:
    given = [{"Name": key, "Value": value} for key, value in parameters.items()]
    answer = aws.sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=given)
    return str(answer["PipelineExecutionArn"])


def ended(aws: Driver, arn: str) -> Json:
    def check() -> Json | None:
        body: Json = aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return body if body["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped") else None

    return wait_until(check, 90, f"the end of {arn}")


def steps_of(aws: Driver, arn: str) -> dict[str, Json]:
    found = aws.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    return {step["StepName"]: step for step in found["PipelineExecutionSteps"]}


def whole_line(aws: Driver, group: str) -> Json:
    prepare = processing(aws, "Prepare", join("=", "accuracy", get("Parameters.Accuracy")))
    prepare["PropertyFiles"] = [
        {"PropertyFileName": "Report", "OutputName": "report", "FilePath": "report.json"}
    ]
    train = training(aws, "Train", answer=get("Parameters.Answer"), epochs=join("", get("Parameters.Epochs")))
    train["Arguments"]["InputDataConfig"] = [
        {
            "ChannelName": "prepared",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": get("Steps.Prepare.ProcessingOutputConfig.Outputs['report'].S3Output.S3Uri"),
                }
            },
        }
    ]
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": group,
            "ModelApprovalStatus": "PendingManualApproval",
            "CustomerMetadataProperties": {"execution": get("Execution.PipelineExecutionId")},
            "InferenceSpecification": {
                "Containers": [
                    {"Image": PROBE, "ModelDataUrl": get("Steps.Train.ModelArtifacts.S3ModelArtifacts")}
                ],
                "SupportedContentTypes": ["image/png"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            "SkipModelValidation": "None",
        },
    }
    accuracy = {
        "Std:JsonGet": {"PropertyFile": get("Steps.Prepare.PropertyFiles.Report"), "Path": "metric.accuracy"}
    }
    decide = condition(
        "GoodEnough",
        compare("GreaterThanOrEqualTo", accuracy, get("Parameters.Threshold")),
        [register],
        [fail("NotGoodEnough", join(" ", "accuracy", accuracy, "is below", get("Parameters.Threshold")))],
    )
    decide["DependsOn"] = ["Train"]
    return definition(
        prepare,
        train,
        decide,
        parameters=[
            parameter("Accuracy", "Float", 0.9),
            parameter("Threshold", "Float", 0.8),
            parameter("Epochs", "Integer", 3),
            parameter("Answer"),
        ],
    )


@pytest.fixture(scope="module")
def line(aws: Driver) -> tuple[str, str]:
    """A pipeline with every kind of step, and the package group that it registers in."""
    group = unique("group")
    aws.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    return create(aws, whole_line(aws, group)), group


def test_the_whole_line_runs_with_real_jobs(aws: Driver, line: tuple[str, str]) -> None:
    name, group = line
    executions = aws.watch("SageMaker Model Building Pipeline Execution Status Change")
    changes = aws.watch("SageMaker Model Building Pipeline Execution Step Status Change")
    answer = aws.sagemaker.start_pipeline_execution(
        PipelineName=name,
        PipelineExecutionDisplayName="generation-1",
        PipelineExecutionDescription="by a test",
        PipelineParameters=[{"Name": "Answer", "Value": "seven"}, {"Name": "Epochs", "Value": "5"}],
    )
    arn = answer["PipelineExecutionArn"]
    body = ended(aws, arn)
    assert body["PipelineExecutionStatus"] == "Succeeded", body.get("FailureReason")
    assert body["PipelineExecutionDisplayName"] == "generation-1"
    steps = steps_of(aws, arn)
    assert list(steps) == ["Prepare", "Train", "GoodEnough", "Register"]
    assert {step["StepStatus"] for step in steps.values()} == {"Succeeded"}
    assert steps["GoodEnough"]["Metadata"]["Condition"]["Outcome"] == "True"

    job_arn = steps["Train"]["Metadata"]["TrainingJob"]["Arn"]
    job = aws.sagemaker.describe_training_job(TrainingJobName=job_arn.rsplit("/", 1)[1])
    assert job["HyperParameters"] == {"answer": "seven", "epochs": "5"}
    assert job["TrainingJobName"].startswith(f"pipelines-{arn.rsplit('/', 1)[1]}-Train-")
    artefact = job["ModelArtifacts"]["S3ModelArtifacts"]
    seen = aws.tar_member(artefact.replace("model.tar", "output.tar"), "seen.json")
    assert "prepared/report.json" in seen["data"]
    assert steps["Prepare"]["Metadata"]["ProcessingJob"]["Arn"].endswith(
        json.loads(seen["data"]["prepared/report.json"])["config"]["ProcessingJobName"]
    )
    package = aws.sagemaker.describe_model_package(
        ModelPackageName=steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    assert package["ModelPackageGroupName"] == group
    assert package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == artefact
    assert package["MetadataProperties"]["GeneratedBy"] == arn
    assert package["CustomerMetadataProperties"] == {"execution": arn.rsplit("/", 1)[1]}

    pipeline_arn = arn.rsplit("/execution/", 1)[0]

    def statuses() -> list[Json]:
        return [e["detail"] for e in executions() if e["resources"] == [pipeline_arn, arn]]

    wait_until(lambda: len(statuses()) >= 2, what="both events")
    final = next(d for d in statuses() if d["currentPipelineExecutionStatus"] == "Succeeded")
    assert final["previousPipelineExecutionStatus"] == "Executing"
    assert final["pipelineExecutionDisplayName"] == "generation-1"
    assert final["executionEndTime"] >= final["executionStartTime"]
    trained = wait_until(
        lambda: next(
            (
                e["detail"]
                for e in changes()
                if e["detail"]["stepName"] == "Train" and e["detail"]["currentStepStatus"] == "Succeeded"
            ),
            None,
        ),
        what="the step event",
    )
    assert trained["metadata"] == {"trainingJob": {"arn": job_arn}}
    assert trained["stepType"] == "Training"
    assert trained["previousStepStatus"] == "Executing"

    values = aws.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
    assert {p["Name"]: p["Value"] for p in values["PipelineParameters"]} == {
        "Accuracy": "0.9",
        "Threshold": "0.8",
        "Epochs": "5",
        "Answer": "seven",
    }
    text = aws.sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
    assert json.loads(text["PipelineDefinition"])["Steps"][0]["Name"] == "Prepare"


def test_a_false_condition_fails_with_the_message_of_the_fail_step(
    aws: Driver, line: tuple[str, str]
) -> None:
    arn = start(aws, line[0], Answer="x", Accuracy="0.25")
    body = ended(aws, arn)
    assert body["PipelineExecutionStatus"] == "Failed"
    assert "NotGoodEnough: accuracy 0.25 is below 0.8" in body["FailureReason"]
    steps = steps_of(aws, arn)
    assert "Register" not in steps
    assert steps["NotGoodEnough"]["FailureReason"] == "accuracy 0.25 is below 0.8"
    assert steps["GoodEnough"]["Metadata"]["Condition"]["Outcome"] == "False"


def test_the_same_token_is_the_same_execution(aws: Driver) -> None:
    name = create(aws, definition(fail("End", "done")))
    token = uuid.uuid4().hex

    def begin(_: int) -> str:
        return str(
            aws.sagemaker.start_pipeline_execution(PipelineName=name, ClientRequestToken=token)[
                "PipelineExecutionArn"
            ]
        )

    with ThreadPoolExecutor(8) as pool:
        arns = set(pool.map(begin, range(16)))
    assert len(arns) == 1
    ended(aws, arns.copy().pop())
    assert begin(0) in arns
    assert start(aws, name) not in arns
    assert len(aws.sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]) == 2
    with pytest.raises(ClientError, match="have length less than or equal to 128"):
        aws.sagemaker.start_pipeline_execution(PipelineName=name, ClientRequestToken="a" * 129)


def test_a_failed_step_ends_the_execution_and_a_retry_keeps_what_succeeded(aws: Driver) -> None:
    first = processing(aws, "First")
    bad = training(aws, "Bad", answer="a")
    bad["Arguments"]["InputDataConfig"] = [
        {
            "ChannelName": "late",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": aws.uri("late-data")}},
        }
    ]
    bad["DependsOn"] = ["First"]
    after = {**fail("After", "never"), "DependsOn": ["Bad"]}
    name = create(aws, definition(first, bad, after))
    arn = start(aws, name)
    body = ended(aws, arn)
    assert body["PipelineExecutionStatus"] == "Failed"
    assert "Bad: ClientError: Data download failed" in body["FailureReason"]
    steps = steps_of(aws, arn)
    assert set(steps) == {"First", "Bad"}
    assert "No S3 objects found" in steps["Bad"]["FailureReason"]

    aws.put("late-data/x", "now it is there")
    aws.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)
    body = ended(aws, arn)
    assert "After: never" in body["FailureReason"]
    again = steps_of(aws, arn)
    assert again["First"]["Metadata"] == steps["First"]["Metadata"]
    assert again["Bad"]["StepStatus"] == "Succeeded"
    assert again["Bad"]["Metadata"] != steps["Bad"]["Metadata"]


def test_a_stopped_execution_stops_its_jobs(aws: Driver) -> None:
    late = {**fail("Late", "never"), "DependsOn": ["Long"]}
    arn = start(aws, create(aws, definition(training(aws, "Long", seconds="60"), late)))

    def job_name() -> str | None:
        metadata = steps_of(aws, arn).get("Long", {}).get("Metadata") or {}
        return metadata["TrainingJob"]["Arn"].rsplit("/", 1)[1] if metadata else None

    job = wait_until(job_name, what="the job")
    with pytest.raises(ClientError, match="only a failed or stopped"):
        aws.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    assert ended(aws, arn)["PipelineExecutionStatus"] == "Stopped"
    assert aws.sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] == "Stopped"
    steps = steps_of(aws, arn)
    assert set(steps) == {"Long"}
    assert steps["Long"]["StepStatus"] == "Stopped"
    with pytest.raises(ClientError, match="is in status Stopped"):
        aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)


def test_the_loop_tells_spot_jobs_that_waited_in_vain_from_one_that_trained(aws: Driver) -> None:
    def spot(name: str, instance_type: str) -> Json:
        step = training(aws, name)
        step["Arguments"] |= {
            "EnableManagedSpotTraining": True,
            "StoppingCondition": {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1},
            "ResourceConfig": {**RESOURCES, "InstanceType": instance_type},
        }
        return step

    def costless(other: Json) -> tuple[bool, str]:
        name = create(aws, definition(spot("TrainOld", "ml.p3.16xlarge"), other))
        arn = start(aws, name)
        assert ended(aws, arn)["PipelineExecutionStatus"] == "Failed"
        steps = read_steps(arn, SageMakerPipeline(aws.sagemaker, name), SageMakerJobs(aws.sagemaker))
        return is_costless(steps), judge_failure(steps, "")[1]

    vain, told = costless(spot("TrainNew", "ml.p3.16xlarge"))  # there are none: conftest.py
    assert vain
    assert told.count("no spot instance came within MaxWaitSeconds") == 2
    trained, told = costless(training(aws, "TrainNew"))
    assert not trained
    assert told.count("no spot instance came within MaxWaitSeconds") == 1


def test_steps_run_side_by_side_up_to_the_limit(aws: Driver) -> None:
    steps = [processing(aws, name, "seconds=0.7") for name in ("A", "B")]
    name = create(aws, definition(*steps))

    def overlap(limit: int) -> bool:
        answer = aws.sagemaker.start_pipeline_execution(
            PipelineName=name, ParallelismConfiguration={"MaxParallelExecutionSteps": limit}
        )
        arn = answer["PipelineExecutionArn"]
        assert ended(aws, arn)["PipelineExecutionStatus"] == "Succeeded"
        found = list(steps_of(aws, arn).values())
        return bool(found[1]["StartTime"] < found[0]["EndTime"])

    assert overlap(2)
    assert not overlap(1)


@pytest.mark.parametrize(
    ("test", "outcome"),
    [
        (compare("Equals", "a", "a"), True),
        (compare("Equals", get("Parameters.N"), 3), True),
        (compare("GreaterThan", 3, get("Parameters.N")), False),
        (compare("LessThan", 2, get("Parameters.N")), True),
        (compare("LessThanOrEqualTo", 4, get("Parameters.N")), False),
        ({"Type": "In", "QueryValue": get("Parameters.N"), "Values": [1, 2, 3]}, True),
        ({"Type": "Not", "Expression": compare("Equals", 1, 2)}, True),
        ({"Type": "Or", "Conditions": [compare("Equals", 1, 2), compare("Equals", 1, 1)]}, True),
        ({"Type": "And", "Conditions": [compare("Equals", 1, 1), compare("Equals", 1, 2)]}, False),
        ([compare("Equals", 1, 1), compare("Equals", 1, 2)], False),
    ],
)
def test_conditions(aws: Driver, test: Json | list[Json], outcome: bool) -> None:
    document = definition(
        condition("Test", test, [fail("Yes", "yes")], [fail("No", "no")]),
        parameters=[parameter("N", "Integer", 3)],
    )
    arn = start(aws, create(aws, document))
    ended(aws, arn)
    assert set(steps_of(aws, arn)) == {"Test", "Yes" if outcome else "No"}


def test_a_condition_that_cannot_be_evaluated_fails_with_the_reason(aws: Driver) -> None:
    document = definition(condition("Test", compare("LessThan", "a", 1), [fail("Yes", "y")], []))
    body = ended(aws, start(aws, create(aws, document)))
    assert "cannot compare 'a' with 1" in body["FailureReason"]


def test_a_missing_property_is_named(aws: Driver) -> None:
    step = processing(aws, "P")
    after = fail("Bad", join("", get("Steps.P.ProcessingOutputConfig.Outputs['nope'].S3Output.S3Uri")))
    body = ended(aws, start(aws, create(aws, definition(step, after))))
    assert "there is no 'nope'" in body["FailureReason"]


def test_arguments_that_the_job_refuses_are_named(aws: Driver) -> None:
    step = training(aws, "T", number=get("Parameters.N"))
    name = create(aws, definition(step, parameters=[parameter("N", "Integer", 3)]))
    body = ended(aws, start(aws, name))
    assert "Failed to invoke sagemaker:CreateTrainingJob" in body["FailureReason"]
    assert "HyperParameters.number" in body["FailureReason"]


def broken(change: Callable[[Json], None]) -> Json:
    document = definition(
        fail("One", "x"),
        condition("Two", compare("Equals", 1, 1), [fail("Three", "y")], []),
        parameters=[parameter("P", "Integer", 1)],
    )
    document = copy.deepcopy(document)
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(Version="2019-01-01"), "Version must be '2020-12-01'"),
        (lambda d: d.update(Steps=[]), "Steps must not be empty"),
        (lambda d: d.pop("Steps"), "Steps must be an array"),
        (lambda d: d["Steps"][0].pop("Name"), r"Steps\[0\].Name must be a string"),
        (lambda d: d["Steps"][0].update(Name="no blanks"), r"Steps\[0\].Name 'no blanks' must match"),
        (
            lambda d: d["Steps"][0].update(Name="Three"),
            r"Steps\[1\].Arguments.IfSteps\[0\].Name 'Three' is used",
        ),
        (lambda d: d["Steps"][0].update(Type="Lambda"), r"Steps\[0\] \(One\) has the Type 'Lambda'"),
        (lambda d: d["Steps"][0].update(Type="Callback"), "has the Type 'Callback'"),
        (lambda d: d["Steps"][0].pop("Arguments"), r"Steps\[0\] \(One\) must have an object as Arguments"),
        (lambda d: d["Steps"][0].update(Arguments={}), "ErrorMessage is missing"),
        (lambda d: d["Steps"][0].update(DependsOn=["Nobody"]), r"DependsOn\[0\] names 'Nobody'"),
        (lambda d: d["Steps"][0].update(DependsOn="Three"), r"Steps\[0\].DependsOn must be an array"),
        (lambda d: d["Steps"][0].update(DependsOn=[["Three"]]), r"DependsOn\[0\] names \['Three'\]"),
        (lambda d: d["Steps"][0].update(PropertyFiles=[1]), r"PropertyFiles\[0\] must be an object"),
        (lambda d: d.update(PipelineDefinitionConfig=[1]), "PipelineDefinitionConfig must be an object"),
        (lambda d: d["Parameters"][0].update(EnumValues=[2]), "1 is not one of its EnumValues"),
        (
            lambda d: d["Steps"][0].update(DependsOn=["Three"]) or d["Steps"][1].update(DependsOn=["One"]),
            "circle",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": get("Parameters.Nope")}),
            r"Steps\[0\].Arguments.ErrorMessage.Get refers to the parameter 'Nope'",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": get("Steps.Nope.x")}),
            "refers to the step 'Nope'",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": get("Execution.Nope")}),
            "refers to Execution.Nope",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": get("Nope")}),
            "must begin with Parameters",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": {"Std:Nope": 1}}),
            "unknown function 'Std:Nope'",
        ),
        (
            lambda d: d["Steps"][0].update(Arguments={"ErrorMessage": {"Std:Join": {"On": ""}}}),
            "Std:Join needs On",
        ),
        (
            lambda d: d["Steps"][1]["Arguments"].update(Conditions=[{"Type": "Like"}]),
            r"Steps\[1\].Arguments.Conditions\[0\].Type is 'Like'",
        ),
        (
            lambda d: d["Steps"][1]["Arguments"].update(Conditions=[{"Type": "Equals", "LeftValue": 1}]),
            r"\(Equals\) must have RightValue",
        ),
        (lambda d: d["Parameters"][0].update(Type="Number"), r"Parameters\[0\].Type must be one of"),
        (lambda d: d["Parameters"][0].update(DefaultValue="x"), "is not of type Integer"),
    ],
)
def test_a_malformed_definition_is_refused(aws: Driver, change: Callable[[Json], None], message: str) -> None:
    with pytest.raises(ClientError, match=message) as caught:
        create(aws, broken(change))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_an_update_is_checked_and_used_by_later_executions(aws: Driver) -> None:
    name = create(aws, definition(fail("Old", "old")))
    with pytest.raises(ClientError, match="not valid JSON"):
        aws.sagemaker.update_pipeline(PipelineName=name, PipelineDefinition="{")
    text = json.dumps(definition(fail("New", "new")))
    aws.put("definition.json", text)
    aws.sagemaker.update_pipeline(
        PipelineName=name,
        PipelineDefinitionS3Location={"Bucket": aws.bucket, "ObjectKey": "definition.json"},
    )
    assert aws.sagemaker.describe_pipeline(PipelineName=name)["PipelineDefinition"] == text
    assert "New: new" in ended(aws, start(aws, name))["FailureReason"]


def test_parameters_are_checked_at_the_start(aws: Driver) -> None:
    parameters = [parameter("Needed"), parameter("Number", "Integer", 1), parameter("Flag", "Boolean", True)]
    name = create(aws, definition(fail("End", get("Parameters.Needed")), parameters=parameters))
    for given, message in (
        ({}, "Missing value for the required parameter Needed"),
        ({"Needed": "a", "Other": "b"}, "Unknown parameter 'Other'"),
        ({"Needed": "a", "Number": "x"}, "'Number' must be of type Integer"),
        ({"Needed": "a", "Flag": "x"}, "'Flag' must be of type Boolean"),
    ):
        with pytest.raises(ClientError, match=message) as caught:
            start(aws, name, **given)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert aws.sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"] == []


def test_executions_are_listed_page_by_page(aws: Driver) -> None:
    name = create(aws, definition(fail("End", "x")))
    arns = [start(aws, name) for _ in range(3)]
    for arn in arns:
        ended(aws, arn)
    pages = list(
        aws.sagemaker.get_paginator("list_pipeline_executions").paginate(
            PipelineName=name, PaginationConfig={"PageSize": 2}
        )
    )
    found = [item["PipelineExecutionArn"] for page in pages for item in page["PipelineExecutionSummaries"]]
    assert len(pages) == 2
    assert found == arns[::-1]
    ascending = aws.sagemaker.list_pipeline_executions(
        PipelineName=name, SortBy="CreationTime", SortOrder="Ascending"
    )["PipelineExecutionSummaries"]
    assert [item["PipelineExecutionArn"] for item in ascending] == arns
    assert ascending[0]["PipelineExecutionStatus"] == "Failed"
    later = aws.sagemaker.list_pipeline_executions(PipelineName=name, CreatedAfter=time.time() + 60)
    assert later["PipelineExecutionSummaries"] == []


def test_pipelines_are_deleted_when_nothing_runs(aws: Driver) -> None:
    name = create(aws, definition(training(aws, "Long", seconds="60")))
    arn = start(aws, name)
    with pytest.raises(ClientError, match="has running executions"):
        aws.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=uuid.uuid4().hex)
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    ended(aws, arn)
    aws.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=uuid.uuid4().hex)
    with pytest.raises(ClientError, match=r"ResourceNotFound.*does not exist"):
        aws.sagemaker.describe_pipeline(PipelineName=name)
    with pytest.raises(ClientError, match=r"ResourceNotFound.*does not exist"):
        aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)


def test_a_model_step_makes_a_model(aws: Driver) -> None:
    step = {
        "Name": "Make",
        "Type": "Model",
        "Arguments": {
            "ExecutionRoleArn": ROLE,
            "PrimaryContainer": {"Image": PROBE, "ModelDataUrl": aws.model_data(answer="x")},
        },
    }
    arn = start(aws, create(aws, definition(step)))
    assert ended(aws, arn)["PipelineExecutionStatus"] == "Succeeded"
    model_arn = steps_of(aws, arn)["Make"]["Metadata"]["Model"]["Arn"]
    assert aws.sagemaker.describe_model(ModelName=model_arn.rsplit("/", 1)[1])["ModelArn"] == model_arn


def test_a_step_is_tried_again_as_its_policies_say(aws: Driver) -> None:
    # S3 can hold "clash/a" and "clash/a/b"; no directory can, and SageMaker calls that its own error.
    aws.put("clash/a", "1")
    aws.put("clash/a/b", "2")
    step = training(aws, "Clash")
    source = {"S3DataType": "S3Prefix", "S3Uri": aws.uri("clash")}
    step["Arguments"]["InputDataConfig"] = [{"ChannelName": "c", "DataSource": {"S3DataSource": source}}]
    step["RetryPolicies"] = [
        {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "MaxAttempts": 9},
        {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 0, "MaxAttempts": 2},
    ]
    arn = start(aws, create(aws, definition(step)))
    assert "InternalServerError" in ended(aws, arn)["FailureReason"]
    assert steps_of(aws, arn)["Clash"]["AttemptCount"] == 3


@pytest.mark.parametrize(
    ("file", "path", "message"),
    [
        ({"OutputName": "report", "FilePath": "none.json"}, "a", "none.json: it does not exist"),
        ({"OutputName": "none", "FilePath": "report.json"}, "a", "names the output 'none'"),
        ({"OutputName": "report", "FilePath": "report.json"}, "metric.none", "there is no 'none'"),
    ],
)
def test_a_property_file_that_is_not_there_is_named(aws: Driver, file: Json, path: str, message: str) -> None:
    step = processing(aws, "P", PropertyFiles=[{"PropertyFileName": "F", **file}])
    wanted = {"Std:JsonGet": {"PropertyFile": get("Steps.P.PropertyFiles.F"), "Path": path}}
    arn = start(aws, create(aws, definition(step, fail("End", join("", wanted)))))
    assert message in ended(aws, arn)["FailureReason"]
