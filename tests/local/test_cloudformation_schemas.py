"""The handlers' tables against AWS's own resource schemas (as cfn-lint ships them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cfnlint
import pytest

from local.cloudformation.resources import resource_types

SCHEMAS = Path(cfnlint.__file__).parent / "data" / "schemas"
INDEX = json.loads((SCHEMAS / "providers" / "us-east-1.json").read_text())
ALSO_REPLACED: dict[str, set[str]] = {
    # The service cannot change these in place, whatever the schema allows.
    "AWS::DynamoDB::Table": {"KeySchema", "LocalSecondaryIndexes"},
    "AWS::Events::EventBus": {"Description"},
    "AWS::Events::Rule": {"EventBusName"},
    "AWS::IAM::Policy": {"PolicyName"},
    "AWS::KMS::Key": {"KeySpec", "KeyUsage", "MultiRegion"},
    "AWS::S3::Bucket": {"ObjectLockEnabled"},
    "AWS::Scheduler::Schedule": {"GroupName"},
}


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / "resources" / f"{INDEX[name]}.json").read_text())


def names(pointers: list[str]) -> set[str]:
    return {pointer.removeprefix("/properties/").split("/")[0] for pointer in pointers}


@pytest.mark.parametrize("name", sorted(resource_types()))
def test_tables_agree_with_the_schema(name: str) -> None:
    # Given
    handler, published = resource_types()[name], schema(name)
    read_only = {path.removeprefix("/properties/") for path in published.get("readOnlyProperties", [])}

    # Then every name is a real, writable property
    known = handler.applied | set(handler.inert)
    assert known <= set(published["properties"]) - read_only
    assert not handler.applied & set(handler.inert)
    assert set(published.get("required", [])) <= handler.required | set(handler.inert)
    # and a change replaces the resource exactly where it does on AWS
    create_only = names(published.get("createOnlyProperties", [])) & known
    assert handler.create_only == create_only | ALSO_REPLACED.get(name, set())
