"""A function whose n-th call in a scenario answers what the scenario's script says, and is written down.

The scenario is found by its key, which is in every name that the machine hands on. Script and calls lie
in one DynamoDB item; it is asked without boto3, whose import would cost every worker half a second.
"""

import http.client
import json
import os
import re
import time
from urllib.parse import urlsplit


def dynamodb(operation, request):
    target = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=20)
    scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/20260101/us-east-1/dynamodb/aws4_request"
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "X-Amz-Security-Token": os.environ.get("AWS_SESSION_TOKEN", ""),
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }
    connection.request("POST", "/", json.dumps(request), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"DynamoDB answered {answer.status}: {body!r}")
    return json.loads(body)


def note(scenario, call):
    """Append a call to the scenario's item and return the item as it was before."""
    request = {
        "TableName": os.environ["SCRIPT_TABLE"],
        "Key": {"scenario": {"S": scenario}},
        "UpdateExpression": "SET calls = list_append(calls, :call)",
        "ExpressionAttributeValues": {":call": {"L": [{"S": json.dumps(call)}]}},
        "ReturnValues": "ALL_OLD",
    }
    return dynamodb("UpdateItem", request)["Attributes"]


def lambda_handler(event, context):
    function = os.environ["FUNCTION"]
    scenario = re.search(r"scenario-[0-9a-f]{8}", json.dumps(event)).group()
    item = note(scenario, [function, event])
    before = sum(json.loads(call["S"])[0] == function for call in item["calls"]["L"])
    answers = json.loads(item["script"]["S"]).get(function, [])
    if before >= len(answers):
        raise RuntimeError(f"call {before + 1} of {function} is not in the script")
    kind, *rest = answers[before]
    if kind == "raises":
        name, message = rest
        raise type(name, (Exception,), {})(message)
    if kind == "dies":
        os._exit(1)
    if kind == "hangs":
        time.sleep(60)
    return rest[0]
