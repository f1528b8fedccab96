"""Data in and out of jobs: S3 prefixes and manifests to files, files to S3, model archives."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError
from moto.s3.exceptions import MissingBucket
from moto.s3.models import s3_backends

from local.context import LocalAws
from local.sagemaker.errors import JobError
from local.sagemaker.rights import s3_as

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Share:
    """Which objects of an input a host gets: every ``of``-th, from the ``index``-th on."""

    index: int
    of: int


ALL = Share(0, 1)


class DataError(JobError):
    """Input data is missing or cannot be read."""


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI.

    Raises
    ------
    DataError
        It is none.
    """
    if not uri.startswith("s3://") or len(uri) == 5:
        raise DataError(f"ClientError: {uri!r} is not an S3 URI (s3://bucket/key).")
    bucket, _, key = uri[5:].partition("/")
    return bucket, key


class DataChannels:
    """Moves data between S3 and the directories of one job.

    Parameters
    ----------
    aws
        The embedded AWS.
    region, role_arn
        Of the job; they appear in error messages as they do on AWS.
    """

    def __init__(self, aws: LocalAws, region: str, role_arn: str) -> None:
        self._aws = aws
        self._region = region
        self._role_arn = role_arn
        self._readable: set[str] = set()
        self._s3 = s3_as(aws, region, role_arn)

    def download(self, uri: str, data_type: str, destination: Path, share: Share = ALL) -> int:
        """Fetch one input, or a host's share of it, and return the number of files of the whole.

        Raises
        ------
        DataError
            Nothing is there, or the manifest is malformed.
        """
        if data_type == "ManifestFile":
            return self._download_manifest(uri, destination, share)
        if data_type != "S3Prefix":
            raise DataError(f"ClientError: the embedded AWS does not support S3DataType {data_type!r}.")
        return self._download_prefix(uri, destination, share)

    def download_if_any(self, uri: str, destination: Path) -> None:
        """Fetch a prefix that may be empty, such as checkpoints."""
        bucket, prefix = split_uri(uri)
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        for key in self._keys(bucket, prefix):
            self._fetch(bucket, key, destination, key.removeprefix(prefix))

    def download_file(self, uri: str, destination: Path) -> None:
        """Fetch one object into one file.

        Raises
        ------
        DataError
            It does not exist.
        """
        bucket, key = split_uri(uri)
        if not self._copy(bucket, key, destination):
            raise self._missing(uri)

    def upload_file(self, source: Path, uri: str) -> None:
        """Store one file as one object."""
        bucket, key = split_uri(uri)
        try:
            with source.open("rb") as stream:
                self._s3.put_object(Bucket=bucket, Key=key, Body=stream)
        except ClientError as error:
            raise DataError(f"ClientError: Failed to upload to {uri}: {error}") from error

    def upload_directory(self, source: Path, uri: str, known: dict[str, tuple[int, int]]) -> None:
        """Store the files below ``source`` that are new or changed since ``known`` was filled."""
        for path in sorted(source.rglob("*")):
            if not path.is_file():
                continue
            name = path.relative_to(source).as_posix()
            facts = path.stat()
            state = (facts.st_mtime_ns, facts.st_size)
            if known.get(name) != state:
                self.upload_file(path, f"{uri.rstrip('/')}/{name}")
                known[name] = state

    def _download_prefix(self, uri: str, destination: Path, share: Share) -> int:
        bucket, prefix = split_uri(uri)
        count = 0
        folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
        parent = prefix.rpartition("/")[0]
        for key in self._keys(bucket, prefix, uri):
            if key == prefix:
                name = PurePosixPath(key).name
            elif key.startswith(folder):
                name = key.removeprefix(folder)
            else:
                name = key.removeprefix(parent).lstrip("/")
            if count % share.of == share.index:
                self._fetch(bucket, key, destination, name)
            count += 1
        if not count:
            raise self._missing(uri)
        return count

    def _download_manifest(self, uri: str, destination: Path, share: Share) -> int:
        body = self.read(uri)
        if body is None:
            raise self._missing(uri)
        try:
            entries = json.loads(body)
            prefix = entries[0]["prefix"]
            names = entries[1:]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"ClientError: Manifest file {uri} is malformed: it must be a JSON array that begins with "
                f'{{"prefix": "s3://bucket/path/"}} and goes on with relative keys ({error!r}).'
            ) from error
        bad = [name for name in names if not isinstance(name, str)]
        if bad:
            raise DataError(f"ClientError: Manifest file {uri} has entries that are no strings: {bad[:3]}.")
        bucket, base = split_uri(prefix)
        for name in names[share.index :: share.of]:
            if not self._fetch(bucket, base + name, destination, name):
                raise DataError(
                    f"ClientError: Failed to download data: the object {prefix}{name} named in the "
                    f"manifest {uri} does not exist."
                )
        if not names:
            raise DataError(f"ClientError: Failed to download data: the manifest {uri} names no objects.")
        return len(names)

    def _fetch(self, bucket: str, key: str, destination: Path, name: str) -> bool:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"ClientError: the key {key!r} leads out of the channel's directory.")
        return self._copy(bucket, key, destination / relative)

    def _keys(self, bucket: str, prefix: str, uri: str | None = None) -> Iterator[str]:
        try:
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):
                        yield item["Key"]
        except ClientError as error:
            raise self._refused(uri or f"s3://{bucket}/{prefix}", error) from error

    def _object(self, bucket: str, key: str) -> Any:
        # Straight from moto's store: over HTTP each object costs milliseconds of both cores, and a
        # dataset of ten thousand small files is an ordinary one.
        try:
            return s3_backends[self._aws.account_id]["aws"].get_object(bucket, key)
        except MissingBucket:
            return None

    def read(self, uri: str) -> bytes | None:
        """Return one object, or None when it does not exist."""
        found = self._object(*split_uri(uri))
        return None if found is None else bytes(found.value)

    def _may_read(self, bucket: str, key: str) -> None:
        """Ask once per bucket whether the role may read objects; the rest is read directly."""
        if bucket in self._readable:
            return
        try:
            self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise self._refused(f"s3://{bucket}/{key}", error) from error
        self._readable.add(bucket)

    def _copy(self, bucket: str, key: str, destination: Path) -> bool:
        found = self._object(bucket, key)
        if found is None:
            return False
        self._may_read(bucket, key)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with destination.open("wb") as target, found.lock:
            found._value_buffer.seek(0)
            shutil.copyfileobj(found._value_buffer, target, _CHUNK)
        return True

    def _refused(self, uri: str, error: ClientError) -> DataError:
        if error.response["Error"]["Code"] in ("NoSuchBucket", "404", "NoSuchKey"):
            return self._missing(uri)
        return DataError(
            f"ClientError: Data download failed: access to {uri} with the role {self._role_arn} was "
            f"refused: {error}"
        )

    def _missing(self, uri: str) -> DataError:
        bucket = uri[5:].partition("/")[0]
        return DataError(
            f'ClientError: Data download failed: No S3 objects found under S3 URL "{uri}" given in input '
            f"data source. Please ensure that the bucket exists in the selected region ({self._region}), "
            f'that objects exist under that S3 prefix, and that the role "{self._role_arn}" has '
            f'"s3:ListBucket" permissions on bucket "{bucket}".'
        )


class ContinuousUpload:
    """Uploads a directory's new and changed files while a job runs."""

    def __init__(self, channels: DataChannels, source: Path, uri: str, seconds: float = 1.0) -> None:
        self._channels = channels
        self._source = source
        self._uri = uri
        self._known: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, name=f"upload-{source.name}", daemon=True)

    def start(self, *, skip_present: bool = False) -> None:
        """Begin; with ``skip_present`` files that are there already are not uploaded again."""
        if skip_present:
            for path in self._source.rglob("*"):
                if path.is_file():
                    facts = path.stat()
                    name = path.relative_to(self._source).as_posix()
                    self._known[name] = (facts.st_mtime_ns, facts.st_size)
        self._thread.start()

    def finish(self) -> None:
        """Upload what is left.

        Raises
        ------
        DataError
            The bucket refuses.
        """
        self._ended.set()
        self._thread.join()
        self._channels.upload_directory(self._source, self._uri, self._known)

    def abandon(self) -> None:
        """End without the last upload."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._channels.upload_directory(self._source, self._uri, self._known)
            except (DataError, FileNotFoundError):
                # The container renamed a file between the listing and the upload: the next round sees
                # it under its new name. What is wrong with the bucket, finish() will say.
                continue


def pack(directories: Mapping[str, Path], archive: Path) -> None:
    """Write what lies in the hosts' directories as one tar.gz, with names relative to them.

    Parameters
    ----------
    directories
        By the host's name.

    Raises
    ------
    DataError
        Two hosts have a file of one name: on AWS either might be the one that is kept.
    """
    holders: dict[str, str] = {}
    with tarfile.open(archive, "w:gz", compresslevel=3) as tar:
        for host, directory in directories.items():
            for path in sorted(directory.rglob("*")):
                name = path.relative_to(directory).as_posix()
                first = holders.setdefault(name, host)
                if first == host:
                    tar.add(path, arcname=name, recursive=False)
                elif not path.is_dir():
                    raise DataError(
                        f"ClientError: {first} and {host} have both written {name} for {archive.name}: "
                        "the names of what several hosts write must differ."
                    )


def unpack(archive: Path, directory: Path, uri: str) -> None:
    """Extract a model archive.

    Raises
    ------
    DataError
        It is no tar.gz, or has members that lead out of the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            tar.extractall(directory, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        # tarfile adds a line for each compression that it has tried.
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(
            f"ClientError: Failed to extract model data archive from URL {uri}. Please ensure that the "
            f"object located at the URL is a valid tar.gz archive ({reason})."
        ) from error


def is_empty(directory: Path) -> bool:
    """Return whether there is no file below a directory."""
    return not any(files for _, _, files in os.walk(directory))
