"""The data bucket, as the commands need it: listing, reading many objects, rewriting, deleting versions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from cli.errors import ChangedError

_AT_ONCE = 8
_BYTES_AT_ONCE = 256 * 1024 * 1024
_DELETED_AT_ONCE = 1000  # S3's limit for DeleteObjects


@dataclass(frozen=True)
class Listed:
    """One object, or one version of it, as a listing names it; `uploaded_at` is an ISO 8601 instant."""

    key: str
    size: int
    version_id: str | None = None
    latest: bool = True
    deleted: bool = False
    uploaded_at: str = ""


@dataclass(frozen=True)
class Content:
    """One object's bytes, and the ETag that says whether it is still the same."""

    listed: Listed
    body: bytes
    etag: str

    @property
    def key(self) -> str:
        """The object's key."""
        return self.listed.key


class Bucket:
    """One S3 bucket.

    Parameters
    ----------
    client : boto3 S3 client
        With the caller's credentials.
    name : str
        The bucket's name.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def list(self, prefix: str) -> Iterator[Listed]:
        """List the objects under a prefix, by key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        for page in pages:
            for item in page.get("Contents", []):
                yield Listed(item["Key"], int(item["Size"]))

    def versions(self, prefix: str) -> Iterator[Listed]:
        """List every version and delete marker under a prefix."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix)
        for page in pages:
            for item in page.get("Versions", []):
                yield Listed(
                    item["Key"],
                    int(item["Size"]),
                    item["VersionId"],
                    bool(item["IsLatest"]),
                    uploaded_at=item["LastModified"].isoformat(),
                )
            for item in page.get("DeleteMarkers", []):
                yield Listed(item["Key"], 0, item["VersionId"], bool(item["IsLatest"]), deleted=True)

    def read(self, listed: Listed) -> Content | None:
        """Read one object, or the version of it that was listed; None when it does not exist."""
        version = {"VersionId": listed.version_id} if listed.version_id else {}
        try:
            answer = self._client.get_object(Bucket=self.name, Key=listed.key, **version)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchVersion"}:
                return None
            raise
        return Content(listed, answer["Body"].read(), answer["ETag"])

    def read_all(self, listed: Iterable[Listed]) -> Iterator[Content]:
        """Read many objects, several at once, in their order; one that is gone meanwhile is passed over.

        At most 256 MiB are on their way at a time, or one object if it is larger.
        """
        under_way: deque[tuple[int, Future[Content | None]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for item in listed:
                size = sum(waiting for waiting, _ in under_way)
                while under_way and (len(under_way) >= _AT_ONCE or size + item.size > _BYTES_AT_ONCE):
                    waiting, first = under_way.popleft()
                    size -= waiting
                    if (found := first.result()) is not None:
                        yield found
                under_way.append((item.size, pool.submit(self.read, item)))
            for _, last in under_way:
                if (found := last.result()) is not None:
                    yield found

    def put(self, key: str, body: bytes) -> None:
        """Write an object, or a new version of it."""
        self._client.put_object(Bucket=self.name, Key=key, Body=body)

    def put_once(self, key: str, body: bytes) -> bool:
        """Write an object unless it exists; return whether it was written.

        Raises
        ------
        ChangedError
            When somebody else is writing or deleting it at the same moment: which came first is not known.
        """
        try:
            self._client.put_object(Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in {"PreconditionFailed", "412"}:
                return False
            if code == "ConditionalRequestConflict":
                raise self._changed(key) from error
            raise
        return True

    def rewrite(self, content: Content, body: bytes) -> None:
        """Write an object anew if it is still what was read.

        Raises
        ------
        ChangedError
            When somebody else has changed it meanwhile.
        """
        try:
            self._client.put_object(Bucket=self.name, Key=content.key, Body=body, IfMatch=content.etag)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"PreconditionFailed", "ConditionalRequestConflict", "412"}:
                raise self._changed(content.key) from error
            raise

    def _changed(self, key: str) -> ChangedError:
        return ChangedError(
            f"s3://{self.name}/{key} was changed by somebody else meanwhile: run the command "
            "again; what it has done so far stays done"
        )

    def now(self) -> datetime:
        """Return S3's own time, which uploads are dated by: this machine's clock may be wrong."""
        answer = self._client.list_objects_v2(Bucket=self.name, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])

    def delete_versions(self, versions: Iterable[Listed]) -> int:
        """Delete versions for good; return how many.

        Raises
        ------
        ChangedError
            When S3 deletes some and refuses others.
        """
        waiting = [{"Key": item.key, "VersionId": item.version_id} for item in versions]
        for start in range(0, len(waiting), _DELETED_AT_ONCE):
            part = waiting[start : start + _DELETED_AT_ONCE]
            answer = self._client.delete_objects(Bucket=self.name, Delete={"Objects": part, "Quiet": True})
            for error in answer.get("Errors", []):
                raise ChangedError(
                    f"S3 did not delete version {error.get('VersionId')} of {error.get('Key')} "
                    f"({error.get('Code')}: {error.get('Message')}): mend that and run the command again"
                )
        return len(waiting)
