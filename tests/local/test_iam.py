"""A function may do what its role grants, and nothing else; the user's own keys may do everything."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

HANDLER = """
import boto3, botocore.exceptions
CALLS = {
    "put": lambda table: boto3.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": "a"}}),
    "transact": lambda table: boto3.client("dynamodb").transact_write_items(
        TransactItems=[{"Put": {"TableName": table, "Item": {"pk": {"S": "b"}}}}]),
    "list": lambda table: boto3.client("s3").list_buckets(),
    "publish": lambda table: boto3.client("sns").publish(
        TopicArn="arn:aws:sns:us-east-1:123456789012:none", Message="x"),
}
def lambda_handler(event, context):
    try:
        CALLS[event["call"]](event["table"])
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return "done"
"""


def function_with_role(server: Any, *, with_policies: bool) -> Any:
    """Return a call into a function whose role grants dynamodb:PutItem alone, or has no policy at all."""
    name = f"iam-{uuid.uuid4().hex[:8]}"
    iam = server.client("iam")
    trust = {"Version": "2012-10-17", "Statement": []}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    statement = {"Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    # SAM attaches a managed policy to every role that it makes.
    if with_policies:
        managed = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]
        iam.attach_role_policy(RoleName=name, PolicyArn=managed["Arn"])
        iam.put_role_policy(RoleName=name, PolicyName="put", PolicyDocument=document)
    server.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", HANDLER)
    functions = server.client("lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.lambda_handler",
        Role=role["Arn"],
        Code={"ZipFile": buffer.getvalue()},
        Timeout=20,
    )

    def call(what: str) -> Any:
        payload = json.dumps({"call": what, "table": name})
        return json.loads(functions.invoke(FunctionName=name, Payload=payload)["Payload"].read())

    return call


@pytest.fixture(scope="module")
def invoke(server: Any) -> Any:
    return function_with_role(server, with_policies=True)


def test_a_role_without_any_policy_is_an_experiment_and_not_judged(server: Any) -> None:
    assert function_with_role(server, with_policies=False)("list") == "done"


def test_granted_calls_are_served(invoke: Any) -> None:
    assert invoke("put") == "done"
    # A transaction needs the actions of its items.
    assert invoke("transact") == "done"


@pytest.mark.parametrize(("call", "code"), [("list", "AccessDenied"), ("publish", "AccessDenied")])
def test_calls_without_a_grant_are_refused(invoke: Any, call: str, code: str) -> None:
    assert invoke(call) == code


def test_the_users_key_needs_no_role(server: Any) -> None:
    assert "Buckets" in server.client("s3").list_buckets()


def test_a_bucket_policy_about_insecure_transport_does_not_apply_to_the_loopback_interface(
    server: Any,
) -> None:
    s3, bucket = server.client("s3"), f"policy-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    tls_only = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only]}))

    s3.put_object(Bucket=bucket, Key="a", Body=b"served")

    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"served"
    without = {key: value for key, value in tls_only.items() if key != "Condition"}
    s3.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only, without]})
    )
    with pytest.raises(ClientError, match="403"):
        s3.put_object(Bucket=bucket, Key="b", Body=b"denied")
