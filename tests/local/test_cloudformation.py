# ruff: noqa: E501 - a template reads better in one line
"""Stacks on the running server: every resource type made, changed and taken down for real."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {
                "Service": ["lambda.amazonaws.com", "states.amazonaws.com", "sagemaker.amazonaws.com"]
            },
        }
    ],
}
ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}}


class Stacks:
    """Creates stacks and deletes what is left of them."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.client = server.client("cloudformation")
        self.names: list[str] = []

    def create(self, resources: dict[str, Any], name: str | None = None, **more: Any) -> dict[str, Any]:
        name = name or f"t-{uuid.uuid4().hex[:10]}"
        self.names.append(name)
        parameters = more.pop("given", {})
        self.client.create_stack(
            StackName=name,
            TemplateBody=json.dumps({"Resources": resources, **more}),
            Parameters=_list(parameters),
            Capabilities=CAPABILITIES,
        )
        return self.describe(name)

    def update(self, name: str, resources: dict[str, Any], **more: Any) -> dict[str, Any]:
        parameters = more.pop("given", {})
        self.client.update_stack(
            StackName=name,
            TemplateBody=json.dumps({"Resources": resources, **more}),
            Parameters=_list(parameters),
            Capabilities=CAPABILITIES,
        )
        return self.describe(name)

    def describe(self, name: str) -> dict[str, Any]:
        stack = self.client.describe_stacks(StackName=name)["Stacks"][0]
        reasons = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in self.client.describe_stack_events(StackName=name)["StackEvents"]
            if event["ResourceStatus"].endswith("_FAILED")
        ]
        outputs = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}
        resources = self.client.describe_stack_resources(StackName=name)["StackResources"]
        return {
            "name": stack["StackName"],
            "id": stack["StackId"],
            "status": stack["StackStatus"],
            "failures": reasons,
            "outputs": outputs,
            "ids": {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in resources},
        }

    def delete(self, name: str) -> dict[str, Any]:
        stack_id = self.client.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
        self.client.delete_stack(StackName=name)
        return self.describe(stack_id)


def _list(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()]


@pytest.fixture
def stacks(server: Any) -> Iterator[Stacks]:
    made = Stacks(server)
    yield made
    for name in reversed(made.names):
        made.client.delete_stack(StackName=name)


def test_bucket(server: Any, stacks: Stacks) -> None:
    # Given
    s3 = server.client("s3")
    properties = {
        "VersioningConfiguration": {"Status": "Enabled"},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"BucketKeyEnabled": True, "ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
            ]
        },
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "RestrictPublicBuckets": "true"},
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Id": "old",
                    "Status": "Enabled",
                    "Prefix": "runs/",
                    "NoncurrentVersionExpirationInDays": 30,
                    "ExpirationInDays": "90",
                    "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": 10}],
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                }
            ]
        },
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
        "CorsConfiguration": {
            "CorsRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "MaxAge": 5}]
        },
        "Tags": [{"Key": "team", "Value": "one"}],
    }
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObjectAcl",
              "Resource": {"Fn::Sub": "${Bucket.Arn}/*"}}]}  # fmt: skip
    resources = {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties},
        "Policy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": policy},
        },
    }

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    bucket = stack["ids"]["Bucket"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert (
        s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["RestrictPublicBuckets"]
        is True
    )
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["Filter"] == {"Prefix": "runs/"}
    assert rule["Expiration"] == {"Days": 90}
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket)
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"][0]["MaxAgeSeconds"] == 5
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "team", "Value": "one"}]
    assert f"{bucket}/*" in s3.get_bucket_policy(Bucket=bucket)["Policy"]

    # When properties leave the template
    kept = {"VersioningConfiguration": {"Status": "Suspended"}}
    stack = stacks.update(
        stack["name"], {**resources, "Bucket": {"Type": "AWS::S3::Bucket", "Properties": kept}}
    )

    # Then they are gone, and the bucket is the same
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Bucket"] == bucket
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Suspended"
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket=bucket)

    # When it is not empty, it stays
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    stack = stacks.delete(stack["name"])
    assert stack["status"] == "DELETE_FAILED"
    assert "not empty" in stack["failures"][-1] or "BucketNotEmpty" in stack["failures"][-1]
    # and goes once it is
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match=r"404|NoSuchBucket"):
        s3.head_bucket(Bucket=bucket)


def test_bucket_notifies_a_queue_and_a_function(server: Any, stacks: Stacks) -> None:
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "NotificationConfiguration": {
                    "QueueConfigurations": [
                        {
                            "Event": "s3:ObjectCreated:*",
                            "Queue": {"Fn::GetAtt": ["Queue", "Arn"]},
                            "Filter": {"S3Key": {"Rules": [{"Name": "suffix", "Value": ".jsonl"}]}},
                        }
                    ]
                }
            },
        },
    }

    stack = stacks.create(resources)

    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    s3 = server.client("s3")
    (found,) = s3.get_bucket_notification_configuration(Bucket=stack["ids"]["Bucket"])["QueueConfigurations"]
    assert found["Events"] == ["s3:ObjectCreated:*"]
    assert found["Filter"]["Key"]["FilterRules"] == [{"Name": "suffix", "Value": ".jsonl"}]


def test_queues_and_their_policy(server: Any, stacks: Stacks) -> None:
    # Given
    sqs = server.client("sqs")
    queue = {
        "Type": "AWS::SQS::Queue",
        "Properties": {
            "VisibilityTimeout": 60,
            "RedrivePolicy": {"deadLetterTargetArn": {"Fn::GetAtt": "Dead.Arn"}, "maxReceiveCount": 3},
            "Tags": [{"Key": "a", "Value": "b"}],
        },
    }
    resources = {
        "Dead": {"Type": "AWS::SQS::Queue", "Properties": {"MessageRetentionPeriod": 1209600}},
        "Queue": queue,
        "Fifo": {"Type": "AWS::SQS::Queue", "Properties": {"FifoQueue": True, "ContentBasedDeduplication": True}},
        "Policy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "Queue"}],
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
                                   "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": ["Queue", "Arn"]}}]},
            },
        },
    }  # fmt: skip

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    url = stack["ids"]["Queue"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "60"
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] in (3, "3")
    assert "sqs:SendMessage" in attributes["Policy"]
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "b"}
    assert stack["ids"]["Fifo"].endswith(".fifo")

    # When
    queue["Properties"] = {"DelaySeconds": 2}
    del resources["Policy"]
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Queue"] == url
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "30"
    assert attributes["DelaySeconds"] == "2"
    assert not attributes.get("Policy")
    assert not attributes.get("RedrivePolicy")
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_topics(server: Any, stacks: Stacks) -> None:
    # Given
    sns = server.client("sns")
    resources: dict[str, Any] = {
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "one"}},
        "Policy": {
            "Type": "AWS::SNS::TopicPolicy",
            "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": {"Version": "2012-10-17", "Id": "mine",
                           "Statement": []}},
        },
        "Subscription": {
            "Type": "AWS::SNS::Subscription",
            "Properties": {
                "TopicArn": {"Ref": "Topic"},
                "Protocol": "sqs",
                "Endpoint": {"Fn::GetAtt": ["Queue", "Arn"]},
                "RawMessageDelivery": True,
                "FilterPolicy": {"kind": ["breach"]},
            },
        },
    }  # fmt: skip

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    topic = sns.get_topic_attributes(TopicArn=stack["ids"]["Topic"])["Attributes"]
    assert topic["DisplayName"] == "one"
    assert "mine" in topic["Policy"]
    subscription = sns.get_subscription_attributes(SubscriptionArn=stack["ids"]["Subscription"])["Attributes"]
    assert subscription["RawMessageDelivery"] == "true"
    assert json.loads(subscription["FilterPolicy"]) == {"kind": ["breach"]}

    # When
    resources["Topic"]["Properties"]["DisplayName"] = "two"
    resources["Subscription"]["Properties"]["RawMessageDelivery"] = False
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert sns.get_topic_attributes(TopicArn=stack["ids"]["Topic"])["Attributes"]["DisplayName"] == "two"
    subscription = sns.get_subscription_attributes(SubscriptionArn=stack["ids"]["Subscription"])["Attributes"]
    assert subscription["RawMessageDelivery"] == "false"
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_table(server: Any, stacks: Stacks) -> None:
    # Given
    dynamodb = server.client("dynamodb")
    properties: dict[str, Any] = {
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "kind")],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-kind",
                "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        "TimeToLiveSpecification": {"AttributeName": "expires", "Enabled": "true"},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
        "SSESpecification": {"SSEEnabled": True},
    }
    resources = {"Table": {"Type": "AWS::DynamoDB::Table", "Properties": properties}}

    # When
    outputs = {"Stream": {"Value": {"Fn::GetAtt": ["Table", "StreamArn"]}}}
    stack = stacks.create(resources, Outputs=outputs)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    name = stack["ids"]["Table"]
    assert "/stream/" in stack["outputs"]["Stream"]
    assert (
        dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["AttributeName"] == "expires"
    )
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"

    # When
    dynamodb.put_item(TableName=name, Item={"pk": {"S": "kept"}})
    del properties["TimeToLiveSpecification"], properties["GlobalSecondaryIndexes"]
    properties["AttributeDefinitions"].pop()
    stack = stacks.update(stack["name"], resources, Outputs=outputs)

    # Then the table is changed in place
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Table"] == name
    assert dynamodb.get_item(TableName=name, Key={"pk": {"S": "kept"}})["Item"]
    assert not dynamodb.describe_table(TableName=name)["Table"].get("GlobalSecondaryIndexes")
    assert (
        dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"]
        == "DISABLED"
    )

    # When its key changes, it is another table
    properties["KeySchema"][0]["AttributeName"] = "id"
    properties["AttributeDefinitions"] = [{"AttributeName": "id", "AttributeType": "S"}]
    stack = stacks.update(stack["name"], resources, Outputs=outputs)
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Table"] != name
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.describe_table(TableName=name)


def test_roles_and_policies(server: Any, stacks: Stacks) -> None:
    # Given
    iam = server.client("iam")
    document = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
    resources: dict[str, Any] = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": TRUST,
                "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess"],
                "Policies": [{"PolicyName": "one", "PolicyDocument": document}],
            },
        },
        "Inline": {
            "Type": "AWS::IAM::Policy",
            "Properties": {"PolicyName": "two", "PolicyDocument": document, "Roles": [{"Ref": "Role"}]},
        },
        "Managed": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "PolicyDocument": {"Version": "2012-10-17", **document},
                "Roles": [{"Ref": "Role"}],
            },
        },
    }

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    role = stack["ids"]["Role"]
    assert set(iam.list_role_policies(RoleName=role)["PolicyNames"]) == {"one", "two"}
    assert len(iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]) == 2

    # When
    properties = resources["Role"]["Properties"]
    properties["Policies"][0] = {"PolicyName": "three", "PolicyDocument": document}
    properties["ManagedPolicyArns"] = []
    changed = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}],
    }
    resources["Managed"]["Properties"]["PolicyDocument"] = changed
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert set(iam.list_role_policies(RoleName=role)["PolicyNames"]) == {"two", "three"}
    (attached,) = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)["PolicyVersion"][
        "Document"
    ]
    assert found == changed
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def _upload(server: Any, bucket: str, key: str, files: dict[str, str]) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for name, text in files.items():
            out.writestr(name, text)
    server.client("s3").put_object(Bucket=bucket, Key=key, Body=archive.getvalue())


def test_functions(server: Any, stacks: Stacks) -> None:
    # Given code and a layer in S3
    functions = server.client("lambda")
    bucket = f"code-{uuid.uuid4().hex[:8]}"
    server.client("s3").create_bucket(Bucket=bucket)
    handler = "import shared, os\ndef handler(event, context):\n    return [shared.WORD, os.environ['WHO'], event]\n"
    _upload(server, bucket, "code.zip", {"app.py": handler})
    _upload(server, bucket, "layer.zip", {"python/shared.py": "WORD = 'first'\n"})
    _upload(server, bucket, "layer2.zip", {"python/shared.py": "WORD = 'second'\n"})
    layer: dict[str, Any] = {
        "Content": {"S3Bucket": bucket, "S3Key": "layer.zip"},
        "CompatibleRuntimes": ["python3.13"],
    }
    function: dict[str, Any] = {
        "Code": {"S3Bucket": bucket, "S3Key": "code.zip"},
        "Handler": "app.handler",
        "Runtime": "python3.13",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Layers": [{"Ref": "Layer"}],
        "Architectures": ["arm64"],
        "EphemeralStorage": {"Size": 1024},
        "Environment": {"Variables": {"WHO": "world"}},
        "MemorySize": "256",
        "Timeout": 20,
        "TracingConfig": {"Mode": "Active"},
        "ReservedConcurrentExecutions": 3,
    }
    resources: dict[str, Any] = {
        "Role": ROLE,
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Layer": {"Type": "AWS::Lambda::LayerVersion", "Properties": layer},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Permission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {"Action": "lambda:InvokeFunction", "FunctionName": {"Ref": "Function"},
                           "Principal": "events.amazonaws.com", "SourceAccount": {"Ref": "AWS::AccountId"}},
        },
        "Async": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Qualifier": "$LATEST", "MaximumRetryAttempts": 1,
                           "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["Queue", "Arn"]}}}},
        },
        "Mapping": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {"FunctionName": {"Ref": "Function"}, "EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]},
                           "BatchSize": 7, "MaximumBatchingWindowInSeconds": 1, "Enabled": False,
                           "FunctionResponseTypes": ["ReportBatchItemFailures"],
                           "ScalingConfig": {"MaximumConcurrency": 2},
                           "FilterCriteria": {"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]}},
        },
        "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Name": "live",
                           "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]}},
        },
    }  # fmt: skip

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    name = stack["ids"]["Function"]
    found = functions.get_function(FunctionName=name)
    settings = found["Configuration"]
    assert settings["Layers"][0]["Arn"] == stack["ids"]["Layer"]
    assert settings["Architectures"] == ["arm64"]
    assert settings["EphemeralStorage"] == {"Size": 1024}
    assert settings["MemorySize"] == 256
    assert settings["TracingConfig"] == {"Mode": "Active"}
    assert found["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    mapping = functions.get_event_source_mapping(UUID=stack["ids"]["Mapping"])
    assert mapping["BatchSize"] == 7
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 2}
    assert functions.get_function_event_invoke_config(FunctionName=name)["MaximumRetryAttempts"] == 1
    assert "events.amazonaws.com" in functions.get_policy(FunctionName=name)["Policy"]
    assert functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"] == "1"
    assert json.load(functions.invoke(FunctionName=name, Payload=b"1")["Payload"]) == ["first", "world", 1]

    # When the layer and the environment change
    layer["Content"]["S3Key"] = "layer2.zip"
    function["Environment"]["Variables"]["WHO"] = "moon"
    del function["EphemeralStorage"], function["ReservedConcurrentExecutions"]
    resources["Mapping"]["Properties"]["BatchSize"] = 9
    del resources["Mapping"]["Properties"]["ScalingConfig"]
    before = stack["ids"]["Layer"]
    stack = stacks.update(stack["name"], resources)

    # Then the function is the same and uses the new layer; the old version is gone
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Function"] == name
    assert stack["ids"]["Layer"] != before
    assert json.load(functions.invoke(FunctionName=name, Payload=b"2")["Payload"]) == ["second", "moon", 2]
    settings = functions.get_function(FunctionName=name)["Configuration"]
    assert settings["EphemeralStorage"] == {"Size": 512}
    assert functions.get_event_source_mapping(UUID=stack["ids"]["Mapping"])["BatchSize"] == 9
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_function(FunctionName=name)


def test_inline_function(server: Any, stacks: Stacks) -> None:
    resources = {
        "Role": ROLE,
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"ZipFile": "def handler(event, context):\n    return 'hi'\n"},
                "Handler": "index.handler",
                "Runtime": "python3.13",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            },
        },
    }

    stack = stacks.create(resources)

    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    functions = server.client("lambda")
    assert json.load(functions.invoke(FunctionName=stack["ids"]["Function"])["Payload"]) == "hi"


def test_log_group(server: Any, stacks: Stacks) -> None:
    logs = server.client("logs")
    name = f"/t/{uuid.uuid4().hex}"
    group: dict[str, Any] = {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"LogGroupName": name, "RetentionInDays": "30"},
    }

    stack = stacks.create({"Group": group})
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    assert logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]["retentionInDays"] == 30

    group["Properties"].pop("RetentionInDays")
    assert stacks.update(stack["name"], {"Group": group})["status"] == "UPDATE_COMPLETE"
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]

    stacks.delete(stack["name"])
    assert not logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]


def test_rules_and_buses(server: Any, stacks: Stacks) -> None:
    # Given
    events = server.client("events")
    bus = f"bus-{uuid.uuid4().hex[:8]}"
    arn = {"Fn::GetAtt": ["Queue", "Arn"]}
    first = {
        "Id": "first",
        "Arn": arn,
        "InputTransformer": {"InputPathsMap": {"k": "$.detail.key"}, "InputTemplate": '{"key": <k>}'},
        "DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Dead", "Arn"]}},
        "RetryPolicy": {"MaximumRetryAttempts": "2", "MaximumEventAgeInSeconds": 60},
    }
    rule: dict[str, Any] = {
        "EventBusName": {"Ref": "Bus"},
        "EventPattern": {"source": ["t"]},
        "Targets": [first, {"Id": "second", "Arn": arn, "InputPath": "$.detail"}],
        "State": "DISABLED",
    }
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Dead": {"Type": "AWS::SQS::Queue"},
        "Bus": {"Type": "AWS::Events::EventBus", "Properties": {"Name": bus}},
        "Rule": {"Type": "AWS::Events::Rule", "Properties": rule},
    }

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Rule"].startswith(f"{bus}|")
    name = stack["ids"]["Rule"].split("|")[1]
    found = events.describe_rule(Name=name, EventBusName=bus)
    assert json.loads(found["EventPattern"]) == {"source": ["t"]}
    assert found["State"] == "DISABLED"
    targets = {
        item["Id"]: item for item in events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]
    }
    assert targets["first"]["RetryPolicy"] == {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 60}
    assert targets["first"]["InputTransformer"]["InputPathsMap"] == {"k": "$.detail.key"}
    assert targets["second"]["InputPath"] == "$.detail"

    # When
    rule["Targets"] = [first]
    rule["State"] = "ENABLED"
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert events.describe_rule(Name=name, EventBusName=bus)["State"] == "ENABLED"
    assert [item["Id"] for item in events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]] == [
        "first"
    ]
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"
    with pytest.raises(events.exceptions.ResourceNotFoundException):
        events.describe_event_bus(Name=bus)


def test_schedules(server: Any, stacks: Stacks) -> None:
    # Given
    scheduler = server.client("scheduler")
    group = f"g-{uuid.uuid4().hex[:8]}"
    schedule: dict[str, Any] = {
        "GroupName": {"Ref": "Group"},
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ScheduleExpression": "cron(0 3 ? * MON *)",
        "ScheduleExpressionTimezone": "Europe/Berlin",
        "State": "DISABLED",
        "Target": {
            "Arn": {"Fn::GetAtt": ["Queue", "Arn"]},
            "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
            "Input": "{}",
            "RetryPolicy": {"MaximumRetryAttempts": 2},
        },
    }
    resources = {
        "Role": ROLE,
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Group": {"Type": "AWS::Scheduler::ScheduleGroup", "Properties": {"Name": group}},
        "Schedule": {"Type": "AWS::Scheduler::Schedule", "Properties": schedule},
    }

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    name = stack["ids"]["Schedule"]
    assert scheduler.get_schedule(Name=name, GroupName=group)["Target"]["RetryPolicy"] == {
        "MaximumRetryAttempts": 2
    }

    # When
    schedule["ScheduleExpression"] = "rate(1 day)"
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert scheduler.get_schedule(Name=name, GroupName=group)["ScheduleExpression"] == "rate(1 day)"
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_alarms(server: Any, stacks: Stacks) -> None:
    # Given
    cloudwatch = server.client("cloudwatch")
    alarm: dict[str, Any] = {
        "AlarmActions": [{"Ref": "Topic"}],
        "ComparisonOperator": "LessThanThreshold",
        "DatapointsToAlarm": "1",
        "Dimensions": [{"Name": "EndpointName", "Value": "e"}],
        "EvaluationPeriods": "2",
        "MetricName": "accuracy",
        "Namespace": "T",
        "Period": 60,
        "Statistic": "Average",
        "Threshold": "0.9",
        "TreatMissingData": "ignore",
    }
    stat = {"Metric": {"Namespace": "T", "MetricName": "errors"}, "Period": 60, "Stat": "Sum"}
    metrics = [
        {"Id": "rate", "Expression": "e / 2", "ReturnData": True},
        {"Id": "e", "MetricStat": stat, "ReturnData": False},
    ]
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic"},
        "One": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm},
        "Mathematics": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 1,
                           "Metrics": metrics},
        },
    }  # fmt: skip

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    (one,) = cloudwatch.describe_alarms(AlarmNames=[stack["ids"]["One"]])["MetricAlarms"]
    assert (one["Threshold"], one["EvaluationPeriods"], one["TreatMissingData"]) == (0.9, 2, "ignore")
    assert one["Dimensions"] == [{"Name": "EndpointName", "Value": "e"}]
    assert one["AlarmActions"] == [stack["ids"]["Topic"]]
    (two,) = cloudwatch.describe_alarms(AlarmNames=[stack["ids"]["Mathematics"]])["MetricAlarms"]
    assert {item["Id"] for item in two["Metrics"]} == {"rate", "e"}

    # When
    alarm["Threshold"] = 0.8
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert cloudwatch.describe_alarms(AlarmNames=[stack["ids"]["One"]])["MetricAlarms"][0]["Threshold"] == 0.8
    stacks.delete(stack["name"])
    assert not cloudwatch.describe_alarms(AlarmNames=[stack["ids"]["One"]])["MetricAlarms"]


def test_state_machines(server: Any, stacks: Stacks) -> None:
    # Given the same machine in its four spellings
    states = server.client("stepfunctions")
    bucket = f"asl-{uuid.uuid4().hex[:8]}"
    server.client("s3").create_bucket(Bucket=bucket)
    yaml_text = 'QueryLanguage: JSONata\nStartAt: P\nStates:\n  P:\n    Type: Pass\n    Output: "{% ${Number} %}"\n    End: true\n'
    server.client("s3").put_object(Bucket=bucket, Key="m.yaml", Body=yaml_text.encode())
    document = {"QueryLanguage": "JSONata", "StartAt": "P",
                "States": {"P": {"Type": "Pass", "Output": "{% ${Number} %}", "End": True}}}  # fmt: skip
    common = {
        "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        "DefinitionSubstitutions": {"Number": {"Ref": "Answer"}},
    }
    resources = {
        "Role": ROLE,
        "Logs": {"Type": "AWS::Logs::LogGroup"},
        "Object": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                **common,
                "Definition": document,
                "TracingConfiguration": {"Enabled": True},
                "LoggingConfiguration": {
                    "Level": "ALL",
                    "IncludeExecutionData": True,
                    "Destinations": [
                        {"CloudWatchLogsLogGroup": {"LogGroupArn": {"Fn::GetAtt": ["Logs", "Arn"]}}}
                    ],
                },
                "Tags": [{"Key": "a", "Value": "b"}],
            },
        },
        "Text": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {**common, "DefinitionString": json.dumps(document), "StateMachineType": "EXPRESS"},
        },
        "File": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {**common, "DefinitionS3Location": {"Bucket": bucket, "Key": "m.yaml"}},
        },
    }
    parameters = {"Answer": {"Type": "Number", "Default": 42}}

    # When
    stack = stacks.create(resources, Parameters=parameters)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    for name in ("Object", "Text", "File"):
        found = states.describe_state_machine(stateMachineArn=stack["ids"][name])
        assert json.loads(found["definition"])["States"]["P"]["Output"] == "{% 42 %}"
    found = states.describe_state_machine(stateMachineArn=stack["ids"]["Object"])
    assert found["loggingConfiguration"]["level"] == "ALL"
    assert found["tracingConfiguration"] == {"enabled": True}
    assert states.describe_state_machine(stateMachineArn=stack["ids"]["Text"])["type"] == "EXPRESS"

    # When only a parameter changes
    stack = stacks.update(stack["name"], resources, Parameters=parameters, given={"Answer": 43})

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    found = states.describe_state_machine(stateMachineArn=stack["ids"]["File"])
    assert "{% 43 %}" in found["definition"]
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_registry_and_pipeline(server: Any, stacks: Stacks) -> None:
    # Given
    sagemaker = server.client("sagemaker")
    tag = uuid.uuid4().hex[:8]
    step = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "one"}}
    definition = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [step]}
    pipeline: dict[str, Any] = {
        "PipelineName": f"pipe-{tag}",
        "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        "PipelineDefinition": {"PipelineDefinitionBody": {"Fn::ToJsonString": definition}},
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    resources = {
        "Role": ROLE,
        "Group": {
            "Type": "AWS::SageMaker::ModelPackageGroup",
            "Properties": {"ModelPackageGroupName": f"group-{tag}", "ModelPackageGroupDescription": "d"},
        },
        "Pipeline": {"Type": "AWS::SageMaker::Pipeline", "Properties": pipeline},
    }

    # When
    stack = stacks.create(resources)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    assert stack["ids"]["Pipeline"] == f"pipe-{tag}"
    assert stack["ids"]["Group"].endswith(f"model-package-group/group-{tag}")
    assert (
        json.loads(sagemaker.describe_pipeline(PipelineName=f"pipe-{tag}")["PipelineDefinition"])
        == definition
    )

    # When its definition comes from S3
    step["Arguments"]["ErrorMessage"] = "two"
    server.client("s3").create_bucket(Bucket=f"pipe-{tag}")
    server.client("s3").put_object(Bucket=f"pipe-{tag}", Key="p.json", Body=json.dumps(definition).encode())
    pipeline["PipelineDefinition"] = {
        "PipelineDefinitionS3Location": {"Bucket": f"pipe-{tag}", "Key": "p.json"}
    }
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert (
        json.loads(sagemaker.describe_pipeline(PipelineName=f"pipe-{tag}")["PipelineDefinition"])
        == definition
    )
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_keys_parameters_repositories(server: Any, stacks: Stacks) -> None:
    # Given
    alias = f"alias/{uuid.uuid4().hex[:8]}"
    resources: dict[str, Any] = {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"EnableKeyRotation": True, "Description": "one"}},
        "Alias": {"Type": "AWS::KMS::Alias", "Properties": {"AliasName": alias, "TargetKeyId": {"Ref": "Key"}}},
        "Parameter": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"Ref": "Key"}}},
        "Repository": {
            "Type": "AWS::ECR::Repository",
            "Properties": {
                "ImageTagMutability": "IMMUTABLE",
                "ImageScanningConfiguration": {"ScanOnPush": "true"},
                "LifecyclePolicy": {"LifecyclePolicyText": '{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5}, "action": {"type": "expire"}}]}'},
            },
        },
    }  # fmt: skip

    # When
    stack = stacks.create(
        resources, Outputs={"Uri": {"Value": {"Fn::GetAtt": ["Repository", "RepositoryUri"]}}}
    )

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    kms, ssm, ecr = (server.client(name) for name in ("kms", "ssm", "ecr"))
    assert kms.get_key_rotation_status(KeyId=stack["ids"]["Key"])["KeyRotationEnabled"] is True
    assert ssm.get_parameter(Name=stack["ids"]["Parameter"])["Parameter"]["Value"] == stack["ids"]["Key"]
    assert stack["outputs"]["Uri"].endswith(stack["ids"]["Repository"])

    # When
    resources["Key"]["Properties"] = {"Description": "two"}
    resources["Parameter"]["Properties"]["Value"] = "v"
    resources["Repository"]["Properties"].pop("LifecyclePolicy")
    stack = stacks.update(stack["name"], resources)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert kms.get_key_rotation_status(KeyId=stack["ids"]["Key"])["KeyRotationEnabled"] is False
    assert ssm.get_parameter(Name=stack["ids"]["Parameter"])["Parameter"]["Value"] == "v"
    with pytest.raises(ecr.exceptions.LifecyclePolicyNotFoundException):
        ecr.get_lifecycle_policy(repositoryName=stack["ids"]["Repository"])
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"


def test_nested_stack(server: Any, stacks: Stacks) -> None:
    # Given a template in S3
    bucket = f"nested-{uuid.uuid4().hex[:8]}"
    server.client("s3").create_bucket(Bucket=bucket)
    inner = {
        "Parameters": {"Delay": {"Type": "Number"}},
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": {"Ref": "Delay"}}}},
        "Outputs": {"Url": {"Value": {"Ref": "Queue"}}},
    }
    server.client("s3").put_object(Bucket=bucket, Key="t.json", Body=json.dumps(inner).encode())
    nested: dict[str, Any] = {
        "Type": "AWS::CloudFormation::Stack",
        "Properties": {"TemplateURL": f"{server.endpoint}/{bucket}/t.json", "Parameters": {"Delay": 1}},
    }
    outputs = {"Url": {"Value": {"Fn::GetAtt": ["Inner", "Outputs.Url"]}}}

    # When
    stack = stacks.create({"Inner": nested}, Outputs=outputs)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    sqs, url = server.client("sqs"), stack["outputs"]["Url"]
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds"])["Attributes"] == {
        "DelaySeconds": "1"
    }
    inner_stack = stacks.client.describe_stacks(StackName=stack["ids"]["Inner"])["Stacks"][0]
    assert inner_stack["ParentId"] == stack["id"]

    # When
    nested["Properties"]["Parameters"]["Delay"] = 2
    stack = stacks.update(stack["name"], {"Inner": nested}, Outputs=outputs)

    # Then
    assert stack["status"] == "UPDATE_COMPLETE", stack["failures"]
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds"])["Attributes"] == {
        "DelaySeconds": "2"
    }
    assert stacks.delete(stack["name"])["status"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="NonExistentQueue"):
        sqs.get_queue_attributes(QueueUrl=url)


def test_functions_of_the_language(stacks: Stacks) -> None:
    # Given every intrinsic function, conditions, mappings, pseudo parameters
    outputs = {
        "Sub": {"Fn::Sub": ["${A}-${AWS::Region}-${!Literal}-${Queue.QueueName}", {"A": {"Ref": "Name"}}]},
        "Join": {"Fn::Join": ["|", {"Ref": "Items"}]},
        "Select": {"Fn::Select": [1, {"Fn::Split": [",", "a,b,c"]}]},
        "Map": {"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, "small"]},
        "MapDefault": {"Fn::FindInMap": ["Sizes", "mars", "small", {"DefaultValue": "none"}]},
        "If": {"Fn::If": ["Both", "yes", "no"]},
        "Base64": {"Fn::Base64": "hi"},
        "Json": {"Fn::ToJsonString": {"a": [1, {"Ref": "Name"}]}},
        "Length": {"Fn::Length": {"Ref": "Items"}},
        "Zone": {"Fn::Select": [0, {"Fn::GetAZs": ""}]},
        "Partition": {"Ref": "AWS::Partition"},
        "Stack": {"Ref": "AWS::StackName"},
        "Suffix": {"Ref": "AWS::URLSuffix"},
    }
    sections = {
        "Parameters": {
            "Name": {"Type": "String", "Default": "n"},
            "Items": {"Type": "CommaDelimitedList", "Default": "x, y"},
        },
        "Mappings": {"Sizes": {"us-east-1": {"small": "s"}}},
        "Conditions": {
            "IsN": {"Fn::Equals": [{"Ref": "Name"}, "n"]},
            "IsNot": {"Fn::Not": [{"Condition": "IsN"}]},
            "Both": {
                "Fn::And": [
                    {"Condition": "IsN"},
                    {"Fn::Or": [{"Condition": "IsNot"}, {"Fn::Equals": [1, "1"]}]},
                ]
            },
        },
        "Outputs": {
            **{name: {"Value": value} for name, value in outputs.items()},
            "Absent": {"Condition": "IsNot", "Value": {"Ref": "Skipped"}},
        },
    }
    resources = {
        "Queue": {
            "Type": "AWS::SQS::Queue",
            "Properties": {"DelaySeconds": {"Fn::If": ["IsNot", 5, {"Ref": "AWS::NoValue"}]}},
        },
        "Skipped": {"Type": "AWS::SQS::Queue", "Condition": "IsNot"},
    }

    # When
    stack = stacks.create(resources, **sections)

    # Then
    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    found = stack["outputs"]
    assert found.pop("Sub").startswith(f"n-us-east-1-${{Literal}}-{stack['name']}-Queue-")
    assert json.loads(found.pop("Json")) == {"a": [1, "n"]}
    assert found == {
        "Join": "x|y",
        "Select": "b",
        "Map": "s",
        "MapDefault": "none",
        "If": "yes",
        "Base64": "aGk=",
        "Length": "2",
        "Zone": "us-east-1a",
        "Partition": "aws",
        "Stack": stack["name"],
        "Suffix": "amazonaws.com",
    }
    assert set(stack["ids"]) == {"Queue"}


def test_exports_and_imports(stacks: Stacks) -> None:
    # Given
    export = f"e-{uuid.uuid4().hex[:8]}"
    queue = {"Queue": {"Type": "AWS::SQS::Queue"}}
    source = stacks.create(queue, Outputs={"Url": {"Value": {"Ref": "Queue"}, "Export": {"Name": export}}})

    # When
    user = stacks.create(
        {
            "P": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Type": "String", "Value": {"Fn::ImportValue": export}},
            }
        }
    )

    # Then
    assert user["status"] == "CREATE_COMPLETE", user["failures"]
    exports = stacks.client.get_paginator("list_exports").paginate().build_full_result()["Exports"]
    assert {"ExportingStackId": source["id"], "Name": export, "Value": source["outputs"]["Url"]} in exports
    assert stacks.client.list_imports(ExportName=export)["Imports"] == [user["name"]]
    with pytest.raises(ClientError, match="in use"):
        stacks.client.delete_stack(StackName=source["name"])
    # and a name can be exported once
    other = stacks.create(queue, Outputs={"Url": {"Value": "x", "Export": {"Name": export}}})
    assert other["status"] == "ROLLBACK_COMPLETE"


def test_ssm_references(server: Any, stacks: Stacks) -> None:
    name = f"/t/{uuid.uuid4().hex[:8]}"
    server.client("ssm").put_parameter(Name=name, Value="7", Type="String")

    stack = stacks.create(
        {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": {"Ref": "Delay"}}}},
        Parameters={"Delay": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": name}},
        Outputs={"Value": {"Value": f"is {{{{resolve:ssm:{name}}}}}"}},
    )

    assert stack["status"] == "CREATE_COMPLETE", stack["failures"]
    assert stack["outputs"]["Value"] == "is 7"


def test_deletion_policies(server: Any, stacks: Stacks) -> None:
    # Given
    sqs = server.client("sqs")
    resources = {
        "Kept": {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"},
        "Gone": {"Type": "AWS::SQS::Queue"},
    }
    stack = stacks.create(resources)
    first = stack["ids"]["Kept"]

    # When it is replaced, and the stack then deleted
    resources["Kept"]["Properties"] = {"QueueName": f"kept-{uuid.uuid4().hex[:8]}"}
    stack = stacks.update(stack["name"], resources)
    second = stack["ids"]["Kept"]
    stack = stacks.delete(stack["name"])

    # Then
    assert stack["status"] == "DELETE_COMPLETE"
    assert first != second
    for url in (first, second):
        assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]


def test_resource_that_leaves_the_template(server: Any, stacks: Stacks) -> None:
    stack = stacks.create({"One": {"Type": "AWS::SQS::Queue"}, "Two": {"Type": "AWS::SQS::Queue"}})
    url = stack["ids"]["Two"]

    stack = stacks.update(stack["name"], {"One": {"Type": "AWS::SQS::Queue"}})

    assert stack["status"] == "UPDATE_COMPLETE"
    assert set(stack["ids"]) == {"One"}
    sqs = server.client("sqs")
    with pytest.raises(ClientError, match="NonExistentQueue"):
        sqs.get_queue_attributes(QueueUrl=url)


def test_templates_and_summaries(stacks: Stacks) -> None:
    # Given a template in YAML with short tags
    text = """
    AWSTemplateFormatVersion: 2010-09-09
    Transform: AWS::Serverless-2016-10-31
    Description: d
    Parameters: {Name: {Type: String, Default: n, NoEcho: true}}
    Resources:
      Machine:
        Type: AWS::Serverless::StateMachine
        Properties:
          Definition: {StartAt: P, States: {P: {Type: Pass, End: true}}}
    Outputs: {Arn: {Value: !GetAtt Machine.Arn}}
    """
    client = stacks.client
    name = f"t-{uuid.uuid4().hex[:10]}"
    stacks.names.append(name)

    # When
    client.create_stack(StackName=name, TemplateBody=text, Capabilities=CAPABILITIES)

    # Then
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["Description"] == "d"
    assert stack["Parameters"] == [{"ParameterKey": "Name", "ParameterValue": "****"}]
    assert client.get_template(StackName=name)["TemplateBody"].strip() == text.strip()
    processed = client.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
    assert "AWS::StepFunctions::StateMachine" in json.dumps(processed, default=str)
    summary = client.get_template_summary(TemplateBody=text)
    assert summary["ResourceTypes"] == ["AWS::Serverless::StateMachine"]
    assert summary["Parameters"][0]["DefaultValue"] == "n"
    assert client.get_template_summary(StackName=name)["Description"] == "d"
    validated = client.validate_template(TemplateBody=text)
    assert validated["DeclaredTransforms"] == ["AWS::Serverless-2016-10-31"]
    with pytest.raises(ClientError, match=r"Unrecognized resource types: \[AWS::Some::Castle\]"):
        client.validate_template(TemplateBody='{"Resources": {"C": {"Type": "AWS::Some::Castle"}}}')
    assert name in [item["StackName"] for item in client.list_stacks()["StackSummaries"]]
    found = client.describe_stack_resource(StackName=name, LogicalResourceId="Machine")["StackResourceDetail"]
    by_id = client.describe_stack_resources(PhysicalResourceId=found["PhysicalResourceId"])["StackResources"]
    assert {item["StackName"] for item in by_id} == {name}
    with pytest.raises(ClientError, match="Stack for nobody does not exist"):
        client.describe_stack_resources(PhysicalResourceId="nobody")
    assert client.get_paginator("list_stack_resources").paginate(StackName=name).build_full_result()
