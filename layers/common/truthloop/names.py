"""Names that derive from a generation, an endpoint or an object: the same input gives the same name."""

from __future__ import annotations

import hashlib
import re

_GENERATION = re.compile(r"g(\d{8,})")
_MAXIMUM_NAME = 63  # SageMaker's limit for models, endpoint configurations and jobs


def generation_name(number: int) -> str:
    """Write generation 7 as ``g00000007``."""
    return f"g{number:08d}"


def generation_number(name: str) -> int:
    """Read the number of ``g00000007``.

    Raises
    ------
    ValueError
        When `name` is no generation.
    """
    match = _GENERATION.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a generation; one looks like g00000007")
    return int(match[1])


def execution_name(execution_arn: str) -> str:
    """Return the last part of an execution's ARN."""
    return execution_arn.rsplit(":", 1)[-1]


def digest(*parts: str) -> str:
    """Return the SHA-256 of `parts`, unambiguous about where one part ends."""
    whole = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()


def resource_name(stem: str, *suffixes: str) -> str:
    """Join `stem` and `suffixes` with hyphens within SageMaker's 63 characters; the stem gives way."""
    tail = "".join(f"-{suffix}" for suffix in suffixes)
    return stem[: _MAXIMUM_NAME - len(tail)].rstrip("-") + tail


def dataset_prefix(generation: str) -> str:
    """Return the key prefix of a generation's dataset version."""
    return f"datasets/{generation}/"


def evaluation_key(generation: str) -> str:
    """Return the key of a generation's comparison."""
    return f"runs/{generation}/evaluation/evaluation.json"


def sides_keys(generation: str) -> tuple[str, str]:
    """Return the keys where a generation's run remembers the pictures' sides: what Prepare left, and had."""
    return f"runs/{generation}/prepared/report/sides.parquet", f"{dataset_prefix(generation)}sides.parquet"


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` into bucket and key.

    Raises
    ------
    ValueError
        When `uri` is not an S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError(f"{uri!r} is not an S3 URI; one looks like s3://bucket/key")
    return bucket, key
