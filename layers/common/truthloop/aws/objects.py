"""The data bucket in S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import IO, Any

from truthloop.aws.calls import translated
from truthloop.dataset import ObjectInfo
from truthloop.errors import AwsRequestFailed, ConditionFailed, ObjectMissing
from truthloop.ports import ObjectStream

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "MethodNotAllowed"})
_CHUNK = 256 * 1024


class S3Objects:
    """Implements ``ports.Objects``."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        """Name of the data bucket."""
        return self._bucket

    def uri(self, key: str) -> str:
        """Return the S3 URI of `key`."""
        return f"s3://{self._bucket}/{key}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects by key."""
        with translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"], item["ETag"].strip('"'), int(item["Size"]))

    def read(self, key: str) -> bytes:
        """Read a whole object."""
        with self.stream(self._bucket, key, None) as stream:
            return b"".join(stream.chunks)

    def read_if_exists(self, key: str) -> bytes | None:
        """Read a whole object, or None."""
        try:
            return self.read(key)
        except ObjectMissing:
            return None

    def lines(self, key: str) -> Iterator[bytes]:
        """Read an object line by line, without the line ends."""
        with self.stream(self._bucket, key, None) as stream:
            held = b""
            for chunk in stream.chunks:
                *whole, held = (held + chunk).split(b"\n")
                yield from whole
            if held:
                yield held

    @contextmanager
    def stream(self, bucket: str, key: str, version_id: str | None) -> Iterator[ObjectStream]:
        """Open one version of an object for reading."""
        version = {"VersionId": version_id} if version_id else {}
        try:
            with translated():
                answer = self._client.get_object(Bucket=bucket, Key=key, **version)
        except AwsRequestFailed as error:
            if error.code in _MISSING:
                at = f" (version {version_id})" if version_id else ""
                raise ObjectMissing(f"s3://{bucket}/{key}{at} does not exist") from error
            raise
        # Not the body's own context manager: that hands out the raw stream, which lacks iter_chunks.
        with closing(answer["Body"]) as body, translated():
            yield ObjectStream(
                chunks=body.iter_chunks(_CHUNK),
                size=int(answer["ContentLength"]),
                last_modified=answer["LastModified"],
                version_id=answer.get("VersionId") or version_id or answer["ETag"].strip('"'),
            )

    def put(self, key: str, content: bytes) -> None:
        """Write an object, replacing one that exists."""
        with translated():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content)

    def put_once(self, key: str, content: bytes | IO[bytes]) -> bool:
        """Write an object unless it exists."""
        try:
            with translated():
                self._client.put_object(Bucket=self._bucket, Key=key, Body=content, IfNoneMatch="*")
        except ConditionFailed:
            return False
        return True
