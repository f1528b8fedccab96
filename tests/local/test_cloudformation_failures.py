# ruff: noqa: E501 - a template reads better in one line
"""What is wrong with a template is said clearly, and what failed leaves nothing behind."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
QUEUE: dict[str, Any] = {"Type": "AWS::SQS::Queue"}


@pytest.fixture
def name(server: Any) -> Iterator[str]:
    stack = f"f-{uuid.uuid4().hex[:10]}"
    yield stack
    server.client("cloudformation").delete_stack(StackName=stack)


def create(server: Any, name: str, template: dict[str, Any] | str, **more: Any) -> None:
    body = template if isinstance(template, str) else json.dumps(template)
    more.setdefault("Capabilities", CAPABILITIES)
    server.client("cloudformation").create_stack(StackName=name, TemplateBody=body, **more)


def status(server: Any, name: str) -> str:
    return str(server.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])


def failures(server: Any, name: str) -> list[str]:
    events = server.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return [
        f"{event['LogicalResourceId']} ({event['ResourceType']}): {event['ResourceStatusReason']}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED")
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a: [", "not well-formed"),
        ("- a", "not an object"),
        ({"Resources": {}}, "At least one|at least one Resources member"),
        ({"Resource": {"Q": QUEUE}}, r"Invalid template property or properties \[Resource\]"),
        ({"Resources": {"Q": {"Properties": {}}}}, "Q.* has no Type"),
        ({"Resources": {"A-B": QUEUE}}, "not alphanumeric"),
        ("Resources: {Q: {Type: 'AWS::SQS::Queue'}, Q: {Type: 'AWS::SNS::Topic'}}", "'Q' is given twice"),
        (
            {"Resources": {"Api": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {}}}},
            r"Unrecognized resource types: \[AWS::ApiGatewayV2::Api\].*Api \(AWS::ApiGatewayV2::Api\)",
        ),
        ({"Resources": {"C": {"Type": "Custom::Thing"}}}, "Custom::Thing"),
        ({"Resources": {"Q": {**QUEUE, "Propertys": {}}}}, "'Propertys' at Resources/Q"),
        (
            {"Resources": {"Q": {**QUEUE, "CreationPolicy": {}}}},
            "Resources/Q: CreationPolicy is not supported",
        ),
        ({"Resources": {"Q": {**QUEUE, "DeletionPolicy": "Snapshot"}}}, "DeletionPolicy 'Snapshot'"),
        ({"Resources": {"Q": {**QUEUE, "DependsOn": "Gone"}}}, r"Unresolved resource dependencies \[Gone\]"),
        (
            {"Resources": {"Q": {**QUEUE, "Properties": {"QueueName": {"Ref": "Gone"}}}}},
            r"Unresolved resource dependencies \[Gone\] in the Resources block of the template \(Q\)",
        ),
        (
            {"Resources": {"Q": QUEUE}, "Outputs": {"O": {"Value": {"Fn::Sub": "${Gone.Arn}"}}}},
            r"\[Gone\] in the Outputs block of the template \(O\)",
        ),
        (
            {"Resources": {"A": {**QUEUE, "DependsOn": ["B"]}, "B": {**QUEUE, "DependsOn": "A"}}},
            r"Circular dependency between resources: \[A, B\]",
        ),
        ({"Resources": {"Q": {**QUEUE, "Condition": "Gone"}}}, "condition dependency Gone"),
        ({"Resources": {"Q": QUEUE}, "Transform": "AWS::Include"}, "No transform named AWS::Include"),
        ({"Resources": {"Q": QUEUE}, "Rules": {"R": {}}}, "Rules is not supported"),
        (
            {
                "Transform": "AWS::Serverless-2016-10-31",
                "Resources": {"F": {"Type": "AWS::Serverless::Function", "Properties": {"Wrong": 1}}},
            },
            r"failed with: Resource with id \[F\] is invalid",
        ),
        ({"Resources": {"Q": QUEUE}, "Parameters": {"P": {"Type": "String"}}}, r"\[P\] must have values"),
        (
            {
                "Resources": {"Q": QUEUE},
                "Parameters": {"P": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/gone"}},
            },
            "SSM parameter /gone does not exist",
        ),
    ],
)
def test_a_malformed_template_is_refused(server: Any, name: str, template: Any, message: str) -> None:
    # When
    with pytest.raises(ClientError, match=message) as refused:
        create(server, name, template)

    # Then there is no stack
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="does not exist"):
        status(server, name)


@pytest.mark.parametrize(
    ("slot", "value", "message"),
    [
        ({"Type": "String", "AllowedValues": ["a", "b"]}, "c", "one of"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "A", "the pattern"),
        (
            {"Type": "String", "AllowedPattern": "[a-z]+", "ConstraintDescription": "lower case"},
            "A",
            "lower case",
        ),
        ({"Type": "String", "MinLength": 3}, "ab", "length"),
        ({"Type": "Number"}, "many", "a number"),
        ({"Type": "Number", "MinValue": 1, "MaxValue": 3}, "4", "between 1 and 3"),
    ],
)
def test_a_parameter_must_fit(server: Any, name: str, slot: dict[str, Any], value: str, message: str) -> None:
    template = {"Resources": {"Q": QUEUE}, "Parameters": {"P": slot}}
    given = [{"ParameterKey": "P", "ParameterValue": value}]

    with pytest.raises(ClientError, match=f"Parameter 'P'.*{message}"):
        create(server, name, template, Parameters=given)


def test_an_unknown_parameter_is_refused(server: Any, name: str) -> None:
    given = [{"ParameterKey": "Typo", "ParameterValue": "1"}]

    with pytest.raises(ClientError, match=r"Parameters: \[Typo\] do not exist"):
        create(server, name, {"Resources": {"Q": QUEUE}}, Parameters=given)


@pytest.mark.parametrize(
    ("template", "needed"),
    [
        ({"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {}}}}, "CAPABILITY_IAM"),
        (
            {"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r"}}}},
            "CAPABILITY_NAMED_IAM",
        ),
        ({"Transform": "AWS::Serverless-2016-10-31", "Resources": {"Q": QUEUE}}, "CAPABILITY_AUTO_EXPAND"),
    ],
)
def test_capabilities_are_demanded(server: Any, name: str, template: dict[str, Any], needed: str) -> None:
    with pytest.raises(ClientError, match=rf"Requires capabilities : \[{needed}\]") as refused:
        create(server, name, template, Capabilities=[])

    assert refused.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (
            {"Type": "AWS::SQS::Queue", "Properties": {"Colour": "red"}},
            "Encountered unsupported property Colour: AWS::SQS::Queue in the embedded AWS would ignore it",
        ),
        (
            {"Type": "AWS::S3::Bucket", "Properties": {"ReplicationConfiguration": {}}},
            "Encountered unsupported property ReplicationConfiguration",
        ),
        (
            {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"State": "Enabled"}}},
            "Encountered unsupported property VersioningConfiguration.State",
        ),
        (
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"LifecycleConfiguration": {"Rules": [{"Status": "Enabled", "Speed": 1}]}},
            },
            r"Encountered unsupported property LifecycleConfiguration.Rules[0].Speed",
        ),
        ({"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String"}}, "required property Value is missing"),
        (
            {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {"EvaluationPeriods": "two", "ComparisonOperator": "GreaterThanThreshold"},
            },
            "EvaluationPeriods must be a number, not str 'two'",
        ),
        (
            {"Type": "AWS::S3::Bucket", "Properties": {"PublicAccessBlockConfiguration": {"BlockPublicAcls": "x"}}},
            "BlockPublicAcls must be true or false",
        ),
        (
            {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"a": 1}}},
            "Value must be a string",
        ),
        (
            {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "RoleArn": "arn:aws:iam::123456789012:role/r",
                    "DefinitionString": '{"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": "${Gone}", "End": true}}}',
                    "DefinitionSubstitutions": {"Given": "x"},
                },
            },
            "${Gone} at DefinitionString.States.A.Result has no value in DefinitionSubstitutions (given: Given)",
        ),
        (
            {"Type": "AWS::StepFunctions::StateMachine", "Properties": {"RoleArn": "arn:aws:iam::1:role/r"}},
            "exactly one of Definition, DefinitionString and DefinitionS3Location",
        ),
        (
            {
                "Type": "AWS::SageMaker::Pipeline",
                "Properties": {
                    "PipelineName": "p",
                    "RoleArn": "arn:aws:iam::123456789012:role/r",
                    "PipelineDefinition": {"PipelineDefinitionBody": "{"},
                },
            },
            "PipelineDefinition is not valid JSON",
        ),
        (
            {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "https://s3.amazonaws.com/none/t"}},
            "TemplateURL https://s3.amazonaws.com/none/t cannot be read",
        ),
        (
            {
                "Type": "AWS::Events::Rule",
                "Properties": {"EventPattern": {"source": ["a"]}, "Targets": [{"Id": "t", "Arn": "a", "Typo": 1}]},
            },
            "Encountered unsupported property Targets[0].Typo",
        ),
    ],
)  # fmt: skip
def test_a_failed_create_rolls_back(server: Any, name: str, resource: dict[str, Any], message: str) -> None:
    # Given a good resource before the bad one
    sqs = server.client("sqs")
    good = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}}

    # When
    create(server, name, {"Resources": {"Good": good, "Bad": {**resource, "DependsOn": "Good"}}})

    # Then the stack says why, and nothing is left
    assert status(server, name) == "ROLLBACK_COMPLETE"
    (reason,) = failures(server, name)
    assert reason.startswith(f"Bad ({resource['Type']}): ")
    assert message in reason
    assert not sqs.list_queues(QueueNamePrefix=name).get("QueueUrls")
    assert not server.client("s3").list_buckets(Prefix=name).get("Buckets")
    # and it can only be deleted
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        server.client("cloudformation").update_stack(
            StackName=name, TemplateBody=json.dumps({"Resources": {"Good": good}})
        )


def test_on_failure(server: Any, name: str) -> None:
    template = {
        "Resources": {
            "Good": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}},
            "Bad": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Type": "Odd", "Value": "v"},
                "DependsOn": "Good",
            },
        }
    }
    client = server.client("cloudformation")

    # DO_NOTHING leaves what was made
    create(server, name, template, OnFailure="DO_NOTHING")
    assert status(server, name) == "CREATE_FAILED"
    assert server.client("sqs").list_queues(QueueNamePrefix=name)["QueueUrls"]
    client.delete_stack(StackName=name)
    assert not server.client("sqs").list_queues(QueueNamePrefix=name).get("QueueUrls")

    # DELETE leaves not even the stack
    create(server, name, template, OnFailure="DELETE")
    with pytest.raises(ClientError, match="does not exist"):
        status(server, name)


def test_a_failed_update_rolls_back(server: Any, name: str) -> None:
    # Given
    sqs, client = server.client("sqs"), server.client("cloudformation")
    replaced = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{name}-one"}}
    changed = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{name}-two", "DelaySeconds": 1}}
    removed = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{name}-three"}}
    outputs = {"Delay": {"Value": "before"}}
    create(
        server,
        name,
        {"Resources": {"Replaced": replaced, "Changed": changed, "Removed": removed}, "Outputs": outputs},
    )
    assert status(server, name) == "CREATE_COMPLETE"

    # When an update replaces, changes, removes, adds, and then fails
    replaced = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{name}-four"}}
    changed["Properties"]["DelaySeconds"] = 2
    bad = {
        "Type": "AWS::SSM::Parameter",
        "Properties": {"Type": "Odd", "Value": "v"},
        "DependsOn": ["Replaced", "Changed", "Added"],
    }
    added = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{name}-five"}}
    resources = {"Replaced": replaced, "Changed": changed, "Added": added, "Bad": bad}
    client.update_stack(
        StackName=name,
        TemplateBody=json.dumps({"Resources": resources, "Outputs": {"Delay": {"Value": "after"}}}),
    )

    # Then everything is as it was
    assert status(server, name) == "UPDATE_ROLLBACK_COMPLETE"
    assert failures(server, name)[0].startswith("Bad (AWS::SSM::Parameter)")
    urls = {url.rsplit("-", 1)[1] for url in sqs.list_queues(QueueNamePrefix=name)["QueueUrls"]}
    assert urls == {"one", "two", "three"}
    url = sqs.get_queue_url(QueueName=f"{name}-two")["QueueUrl"]
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds"])["Attributes"] == {
        "DelaySeconds": "1"
    }
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["Outputs"] == [{"OutputKey": "Delay", "OutputValue": "before"}]
    listed = client.describe_stack_resources(StackName=name)["StackResources"]
    assert {item["LogicalResourceId"] for item in listed} == {"Replaced", "Changed", "Removed"}
    # and the stack can be updated again
    client.update_stack(StackName=name, TemplateBody=json.dumps({"Resources": {"Replaced": replaced}}))
    assert status(server, name) == "UPDATE_COMPLETE"


def test_a_nested_failure_names_the_resource(server: Any, name: str) -> None:
    bucket = f"nested-{name}"
    s3 = server.client("s3")
    s3.create_bucket(Bucket=bucket)
    inner = {"Resources": {"Deep": {"Type": "AWS::SQS::Queue", "Properties": {"Colour": 1}}}}
    s3.put_object(Bucket=bucket, Key="t.json", Body=json.dumps(inner).encode())
    properties = {"TemplateURL": f"{server.endpoint}/{bucket}/t.json"}

    create(
        server,
        name,
        {"Resources": {"Inner": {"Type": "AWS::CloudFormation::Stack", "Properties": properties}}},
    )

    assert status(server, name) == "ROLLBACK_COMPLETE"
    assert "Deep (AWS::SQS::Queue): Encountered unsupported property Colour" in failures(server, name)[0]
    listed = server.client("cloudformation").list_stacks()["StackSummaries"]
    assert [item["StackStatus"] for item in listed if item["StackName"].startswith(f"{name}-Inner")] == [
        "DELETE_COMPLETE"
    ]


def test_an_endpoint_that_cannot_serve_is_taken_away(server: Any, name: str) -> None:
    # Given a model whose artefact is missing
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
            }
        ],
    }
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-inference:latest"
    variant = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": "v",
        "InitialInstanceCount": "1",
        "InstanceType": "ml.g4dn.xlarge",
        "InitialVariantWeight": 1,
    }
    resources = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
        "Model": {
            "Type": "AWS::SageMaker::Model",
            "Properties": {"ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                           "PrimaryContainer": {"Image": image, "ModelDataUrl": f"s3://{name}/model.tar.gz"}},
        },
        "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}},
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {"EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}},
        },
    }  # fmt: skip
    server.client("s3").create_bucket(Bucket=name)

    # When
    create(server, name, {"Resources": resources})

    # Then
    assert status(server, name) == "ROLLBACK_COMPLETE"
    assert failures(server, name)[0].startswith(
        "Endpoint (AWS::SageMaker::Endpoint): the endpoint is Failed: "
    )
    sagemaker = server.client("sagemaker")
    assert not sagemaker.list_endpoints(NameContains=name)["Endpoints"]
    assert not sagemaker.list_models(NameContains=name)["Models"]


def test_the_type_of_a_resource_cannot_change(server: Any, name: str) -> None:
    create(server, name, {"Resources": {"R": QUEUE}})

    server.client("cloudformation").update_stack(
        StackName=name, TemplateBody=json.dumps({"Resources": {"R": {"Type": "AWS::SNS::Topic"}}})
    )

    assert status(server, name) == "UPDATE_ROLLBACK_COMPLETE"
    assert "Update of resource type is not permitted" in failures(server, name)[0]


def test_a_missing_attribute_is_named(server: Any, name: str) -> None:
    outputs = {"O": {"Value": {"Fn::GetAtt": ["Q", "Colour"]}}}

    create(server, name, {"Resources": {"Q": QUEUE}, "Outputs": outputs})

    assert status(server, name) == "ROLLBACK_COMPLETE"
    (stack,) = server.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    events = server.client("cloudformation").describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    reasons = [event.get("ResourceStatusReason", "") for event in events]
    assert any("AWS::SQS::Queue Q has no attribute Colour" in reason for reason in reasons)


def test_what_exists_is_not_adopted(server: Any, name: str) -> None:
    server.client("s3").create_bucket(Bucket=name)

    create(
        server, name, {"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}}}
    )

    assert status(server, name) == "ROLLBACK_COMPLETE"
    assert "already exists" in failures(server, name)[0]
    server.client("s3").head_bucket(Bucket=name)


def test_change_sets(server: Any, name: str) -> None:
    # Given
    client = server.client("cloudformation")

    def change(kind: str, resources: dict[str, Any]) -> dict[str, Any]:
        made = client.create_change_set(
            StackName=name,
            ChangeSetName=f"c{uuid.uuid4().hex}",
            ChangeSetType=kind,
            TemplateBody=json.dumps({"Resources": resources}),
        )
        found = client.describe_change_set(ChangeSetName=made["Id"])
        found["lines"] = {
            (item["ResourceChange"]["LogicalResourceId"], item["ResourceChange"]["Action"],
             item["ResourceChange"].get("Replacement"))
            for item in found["Changes"]
        }  # fmt: skip
        return dict(found)

    # An unusable template fails the change set, not the request
    failed = change("CREATE", {"Api": {"Type": "AWS::ApiGatewayV2::Api"}})
    assert failed["Status"] == "FAILED"
    assert "AWS::ApiGatewayV2::Api" in failed["StatusReason"]
    with pytest.raises(client.exceptions.InvalidChangeSetStatusException):
        client.execute_change_set(ChangeSetName=failed["ChangeSetId"])
    assert status(server, name) == "REVIEW_IN_PROGRESS"

    # A good one lists what it will do, and does it
    first = change("CREATE", {"A": QUEUE, "B": QUEUE})
    assert first["lines"] == {("A", "Add", None), ("B", "Add", None)}
    client.execute_change_set(ChangeSetName=first["ChangeSetId"])
    assert status(server, name) == "CREATE_COMPLETE"
    assert (
        client.describe_change_set(ChangeSetName=first["ChangeSetId"])["ExecutionStatus"]
        == "EXECUTE_COMPLETE"
    )

    # So does the next; one without changes fails as on AWS
    second = change(
        "UPDATE",
        {
            "A": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": 1}},
            "C": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}},
        },
    )
    assert second["lines"] == {("A", "Modify", "False"), ("B", "Remove", None), ("C", "Add", None)}
    unchanged = change("UPDATE", {"A": QUEUE, "B": QUEUE})
    assert unchanged["Status"] == "FAILED"
    assert "didn't contain changes" in unchanged["StatusReason"]
    client.delete_change_set(ChangeSetName=unchanged["ChangeSetId"])
    with pytest.raises(client.exceptions.ChangeSetNotFoundException):
        client.describe_change_set(ChangeSetName=unchanged["ChangeSetId"])
    # and names are unique
    with pytest.raises(ClientError, match="already exists"):
        change("CREATE", {"A": QUEUE})
    with pytest.raises(ClientError, match="already exists"):
        create(server, name, {"Resources": {"A": QUEUE}})
    with pytest.raises(ClientError, match="No updates are to be performed"):
        client.update_stack(StackName=name, TemplateBody=json.dumps({"Resources": {"A": QUEUE, "B": QUEUE}}))


def test_termination_protection(server: Any, name: str) -> None:
    client = server.client("cloudformation")
    create(server, name, {"Resources": {"Q": QUEUE}}, EnableTerminationProtection=True)

    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        client.delete_stack(StackName=name)

    client.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    client.delete_stack(StackName=name)
    with pytest.raises(ClientError, match="does not exist"):
        status(server, name)
