"""One place where AWS's failures become Truthloop's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BrokenConnectionError

from truthloop.errors import AwsRequestFailed, ConditionFailed, TransientAwsError

CONNECTIONS = 16
"""How many requests one client has under way at most."""

CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=CONNECTIONS,
)
"""Few quick attempts: the state machine (or SQS) does the patient retrying, where it can be seen."""

_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
        "TransactionConflictException",
        "ConditionalRequestConflict",  # S3: another conditional write of the key is under way
        "OperationAborted",
        "ModelNotReadyException",
    }
)
_CONDITION_CODES = frozenset(
    {"ConditionalCheckFailedException", "ConditionalCheckFailed", "PreconditionFailed"}
)
_TRANSIENT_REASONS = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})


@contextmanager
def translated() -> Iterator[None]:
    """Turn botocore's exceptions into domain errors.

    Raises
    ------
    TransientAwsError
        On throttling, a 5xx answer, a time-out or a broken connection.
    ConditionFailed
        On a failed condition of a conditional write or transaction.
    AwsRequestFailed
        On every other refusal; its `code` is AWS's.
    """
    try:
        yield
    except ClientError as error:
        raise translate(error) from error
    except (BrokenConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise TransientAwsError(f"AWS did not answer: {error}") from error


def translate(error: ClientError) -> TransientAwsError | ConditionFailed | AwsRequestFailed:
    """Return the domain error for a ClientError, by its code and HTTP status."""
    response: dict[str, Any] = dict(error.response)
    described = response.get("Error", {})
    code, message = str(described.get("Code", "")), str(described.get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    operation = error.operation_name
    if code == "TransactionCanceledException":
        reasons = {str(reason.get("Code")) for reason in response.get("CancellationReasons", [])}
        if reasons & _CONDITION_CODES:
            return ConditionFailed(f"{operation}: a condition of the transaction does not hold")
        if reasons & _TRANSIENT_REASONS:
            return TransientAwsError(f"{operation} was cancelled: {', '.join(sorted(reasons))}")
    if code in _CONDITION_CODES or status == 412:
        return ConditionFailed(f"{operation}: the condition does not hold")
    if code in _TRANSIENT_CODES or status >= 500 or status == 429:
        return TransientAwsError(f"{operation} failed for the moment with {code or status}: {message}")
    return AwsRequestFailed(operation, code or str(status), message)
