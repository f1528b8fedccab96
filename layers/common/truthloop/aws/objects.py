"""The data bucket in S3."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Any

from truthloop.aws.calls import CONNECTIONS, translated
from truthloop.errors import AwsRequestFailed, ConditionFailed, ObjectMissing
from truthloop.ports import ObjectStream
from truthloop.versions.dataset import ObjectInfo

if TYPE_CHECKING:
    from concurrent.futures import Future

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "MethodNotAllowed"})
_CHUNK = 256 * 1024
_SMALL = 1024 * 1024
_WINDOW = 4 * CONNECTIONS
"""How many objects are asked for ahead of the one being read: at most this many small ones in memory."""


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
            held = bytearray()  # a line may be many chunks long: adding to bytes would copy it each time
            for chunk in stream.chunks:
                first, *rest = chunk.split(b"\n")
                held += first
                if rest:
                    yield bytes(held)
                    held = bytearray(rest.pop())
                    yield from rest
            if held:
                yield bytes(held)

    def lines_of_each(self, items: Iterable[ObjectInfo]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Read many objects, in order; small ones are fetched ahead, several at once.

        An upload may be one line: one after the other, ten thousand of them take minutes. Memory is bounded
        by the window of small objects; a large one is streamed when its turn comes.
        """
        # Only those that read many objects pay for the import.
        from concurrent.futures import ThreadPoolExecutor

        ahead: deque[tuple[str, Future[bytes] | None]] = deque()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            try:
                for info in items:
                    small = info.size <= _SMALL
                    ahead.append((info.key, pool.submit(self.read, info.key) if small else None))
                    if len(ahead) >= _WINDOW:
                        yield self._lines_of(*ahead.popleft())
                while ahead:
                    yield self._lines_of(*ahead.popleft())
            finally:
                for _, fetched in ahead:
                    if fetched is not None:
                        fetched.cancel()

    def _lines_of(self, key: str, fetched: Future[bytes] | None) -> tuple[str, Iterator[bytes]]:
        if fetched is None:
            return key, self.lines(key)
        lines = fetched.result().split(b"\n")
        return key, iter(lines if lines[-1] else lines[:-1])

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
