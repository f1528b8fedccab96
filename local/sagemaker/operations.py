"""The table of supported API operations, and how they replace moto's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import botocore.session
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.sagemaker.responses import SageMakerResponse

from local.sagemaker import constraints
from local.sagemaker.errors import UnsupportedOperation, ValidationError
from local.sagemaker.state import Params, RegionState, SageMaker


@dataclass(frozen=True)
class Call:
    """One API call."""

    sagemaker: SageMaker
    region: str
    params: Params

    @property
    def state(self) -> RegionState:
        """The state of the region that was called."""
        return self.sagemaker.region(self.region)

    def __getitem__(self, name: str) -> Any:
        if self.params.get(name) is None:
            raise ValidationError(f"1 validation error detected: Value null at '{name}' must not be null")
        return self.params[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter that may be missing."""
        value = self.params.get(name)
        return default if value is None else value


Handler = Callable[[Call], Params]

OPERATIONS: dict[str, Handler] = {}


def operation(name: str) -> Callable[[Handler], Handler]:
    """Register the handler of an API operation."""

    def register(handler: Handler) -> Handler:
        OPERATIONS[name] = handler
        return handler

    return register


def install(sagemaker: SageMaker) -> None:
    """Put the handlers in place of moto's; every other operation refuses, naming itself."""
    # SageMaker's model lacks our UnsupportedOperation; moto would say so in the server's output.
    warnings.filterwarnings("ignore", message=".*does not match an error shape", category=UserWarning)
    model = botocore.session.get_session().get_service_model("sagemaker")
    for name in model.operation_names:
        handler = OPERATIONS.get(name)
        method = _supported(sagemaker, name, handler) if handler else _refusing(name)
        setattr(SageMakerResponse, camelcase_to_underscores(name), method)


def _supported(sagemaker: SageMaker, name: str, handler: Handler) -> Callable[[Any], ActionResult]:
    def method(self: Any) -> ActionResult:
        params = dict(self.params)
        constraints.check(name, params)
        return ActionResult(handler(Call(sagemaker, self.region, params)))

    return method


def _refusing(name: str) -> Callable[[Any], ActionResult]:
    def method(self: Any) -> ActionResult:
        raise UnsupportedOperation(
            f"The embedded AWS does not implement sagemaker:{name}; it keeps no record of what it cannot do."
        )

    return method


def page(
    call: Call,
    items: list[Params],
    *,
    result: str,
    sort: dict[str, Callable[[Params], Any]],
    default_sort: str,
    default_order: str = "Descending",
    name_of: Callable[[Params], str] | None = None,
    created: str = "CreationTime",
    modified: str = "LastModifiedTime",
) -> Params:
    """Filter, sort and cut a list as the List* operations do.

    Parameters
    ----------
    items
        Summaries in order of creation.
    result
        Name of the list in the response.
    sort
        SortBy value to key function.
    default_sort, default_order
        What AWS does when the request says nothing.
    name_of
        What NameContains looks at.
    created, modified
        The members that hold the times.
    """
    tests: list[tuple[str, Callable[[Params, Any], bool]]] = [
        ("CreationTimeAfter", lambda item, value: _after(item.get(created), value)),
        ("CreatedAfter", lambda item, value: _after(item.get(created), value)),
        ("CreationTimeBefore", lambda item, value: _after(value, item.get(created))),
        ("CreatedBefore", lambda item, value: _after(value, item.get(created))),
        ("LastModifiedTimeAfter", lambda item, value: _after(item.get(modified), value)),
        ("LastModifiedTimeBefore", lambda item, value: _after(value, item.get(modified))),
    ]
    if name_of is not None:
        naming = name_of
        tests.append(("NameContains", lambda item, value: value.lower() in naming(item).lower()))
    for parameter, test in tests:
        wanted = call.get(parameter)
        if wanted is not None:
            items = [item for item in items if test(item, wanted)]
    by = call.get("SortBy", default_sort)
    if by not in sort:
        raise ValidationError(f"SortBy must be one of {sorted(sort)}: {by!r}")
    descending = call.get("SortOrder", default_order) == "Descending"
    # sorted() is stable: with equal times the order of creation decides, also when reversed.
    items = sorted(reversed(items) if descending else items, key=sort[by], reverse=descending)
    token = call.get("NextToken", "0")
    if not str(token).isdigit():
        raise ValidationError(f"Invalid NextToken: {token!r}")
    start = int(token)
    end = start + int(call.get("MaxResults", 100))
    response: Params = {result: items[start:end]}
    if end < len(items):
        response["NextToken"] = str(end)
    return response


def _after(moment: Any, limit: Any) -> bool:
    return _aware(moment) > _aware(limit)


def _aware(moment: Any) -> datetime:
    from datetime import UTC

    if not isinstance(moment, datetime):
        return datetime.fromtimestamp(float(moment or 0), UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
