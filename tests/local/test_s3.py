"""S3's answers to what it refuses: clients decide by the HTTP status."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError


@pytest.fixture
def bucket(server: Any) -> Iterator[tuple[Any, str]]:
    s3, name = server.client("s3"), f"s3-test-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="first", Body=b"1")
    yield s3, name
    for item in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=item["Key"])
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize(
    ("operation", "request_", "code", "status"),
    [
        ("put_object", {"Key": "first", "Body": b"2", "IfNoneMatch": "*"}, "PreconditionFailed", 412),
        ("put_object", {"Key": "first", "Body": b"2", "IfMatch": '"x"'}, "PreconditionFailed", 412),
        ("get_object", {"Key": "first", "Range": "bytes=5-9"}, "InvalidRange", 416),
        ("get_object", {"Key": "none"}, "NoSuchKey", 404),
        ("get_bucket_policy", {}, "NoSuchBucketPolicy", 404),
        ("get_bucket_tagging", {}, "NoSuchTagSet", 404),
        ("delete_bucket", {}, "BucketNotEmpty", 409),
        ("list_objects_v2", {"ContinuationToken": "nobody's"}, "InvalidArgument", 400),
    ],
)
def test_errors_have_their_status(
    bucket: tuple[Any, str], operation: str, request_: dict[str, Any], code: str, status: int
) -> None:
    s3, name = bucket
    with pytest.raises(ClientError) as caught:
        getattr(s3, operation)(Bucket=name, **request_)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def test_of_many_writers_one_is_the_first(bucket: tuple[Any, str]) -> None:
    s3, name = bucket

    def write(number: int) -> int:
        try:
            s3.put_object(Bucket=name, Key="once", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return number

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(16)))
    (winner,) = (answer for answer in answers if answer != 412)
    assert s3.get_object(Bucket=name, Key="once")["Body"].read() == b"%d" % winner


def test_pages_follow_each_other(bucket: tuple[Any, str]) -> None:
    s3, name = bucket
    for key in "abc":
        s3.put_object(Bucket=name, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=name, PaginationConfig={"PageSize": 1})
    assert [item["Key"] for page in pages for item in page["Contents"]] == ["a", "b", "c", "first"]


@pytest.mark.parametrize("name", ["Capitals", "under_score", "two..dots", "-dash"])
def test_a_bucket_name_that_is_none_is_refused(server: Any, name: str) -> None:
    with pytest.raises(ClientError, match="InvalidBucketName"):
        server.client("s3").create_bucket(Bucket=name)
