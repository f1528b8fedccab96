"""Every AWS call, found by botocore's own hooks, and what can go wrong at each.

A process that comes to a call forks once for each fault that is possible there: the child goes on with
the fault to the end of the scenario, the parent goes on without. So no call can escape, whoever adds one, and
what leads to it is played once.

A function's process leaves nothing behind but its writes. So of two faults that end the same invocation in
the same way after the same writes the second is not played on: what follows is what followed the first.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.contract.api_model import violations

CRASH_BEFORE = "crash before"
CRASH_AFTER = "crash after"
STOPPED_BEFORE = "execution stopped before"
STOPPED_AFTER = "execution stopped after"
THROTTLED = "throttled"
ANSWER_LOST = "answer lost"
SENT_TWICE = "sent twice"
DENIED = "access denied"
INVALID = "invalid"
SERVER_ERROR = "server error"
OUTAGE = "outage"

ERRORS = {
    THROTTLED: ("ThrottlingException", 400),
    DENIED: ("AccessDeniedException", 403),
    INVALID: ("ValidationException", 400),
    SERVER_ERROR: ("InternalServerError", 500),
    OUTAGE: ("ServiceUnavailable", 503),
}

READS = ("Describe", "Get", "List", "Query", "Head", "InvokeEndpoint")
DEATHS = (CRASH_BEFORE, STOPPED_BEFORE)
CUT_AT_READS = (CRASH_AFTER, STOPPED_AFTER, ANSWER_LOST, SENT_TWICE, SERVER_ERROR)
"""At a call that changes nothing: to die or be stopped after it is to die or be stopped before it; a lost
answer and a server error become the TransientAwsError that a throttle becomes, as
tests/unit/test_adapter_rules.py shows, and an outage begins with one; asked twice it answers twice."""

TOKENS = frozenset({"TransactWriteItems"})
"""The SDK sends these with a token of its own: the service takes the second for the first, moto does not."""

NONE_THERE = frozenset({"DescribeEndpoint"})
"""SageMaker's ValidationException says here that there is none: an answer, and a wrong one is no fault."""

ANSWER_TIME = 30.0
"""Seconds until a client gives an answer up."""
MAXIMUM_CALLS = 4000


class Died(BaseException):
    """The function's process has ended: no handler of it catches that."""


class Refused(Exception):  # noqa: N818 - it says what happened, like the names in truthloop/errors.py
    """A simulated service refuses a request."""

    def __init__(self, code: str, message: str = "refused", status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.status, self.message = code, status, message

    def answer(self) -> tuple[AWSResponse, dict[str, Any]]:
        """Return what botocore makes of it."""
        return canned(self.status, {"Error": {"Code": self.code, "Message": self.message}})

    def client_error(self, operation: str) -> ClientError:
        """Return what a client raises of it."""
        return ClientError(self.answer()[1], operation)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Site:
    """One call: who makes it, the operation, and which of its kind it is in the scenario."""

    who: str
    service: str
    operation: str
    nth: int

    def __str__(self) -> str:
        return f"{self.who} → {self.service}:{self.operation} #{self.nth}"

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.operation.startswith(READS)


@dataclass
class Case:
    """One call site with one fault, and what came of it."""

    site: str
    fault: str
    broken: list[str]
    played: bool


@dataclass
class Explorer:
    """Forks at every call; in a child it injects the one fault that the child is for.

    Parameters
    ----------
    who : Callable
        Says who calls at this moment: a function's name or a machine's state.
    stop : Callable
        Stops the execution that is calling; returns whether there is one.
    pass_by : Callable
        Lets virtual seconds pass.
    stand_ins : dict
        Per (service, operation) what answers in AWS's place.
    """

    who: Callable[[], str]
    stop: Callable[[], bool]
    pass_by: Callable[[float], None]
    stand_ins: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]]
    exploring: bool = False
    explores: Callable[[str, str], bool] = lambda who, operation: True
    active: bool = True
    fault: str = ""
    where: Site | None = None
    report_to: int = -1
    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    operations: set[tuple[str, str, str]] = field(default_factory=set)
    cases: list[Case] = field(default_factory=list)
    cut: Counter[str] = field(default_factory=Counter)
    sites: int = 0
    invocation: int = 0
    written: tuple[str, ...] = ()
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    lost: set[tuple[str, str]] = field(default_factory=set)
    known: dict[str, list[str]] = field(default_factory=dict)
    explored: set[tuple[str, str, str]] = field(default_factory=set)
    _ended: str = ""
    _request: dict[str, Any] = field(default_factory=dict)
    _violation: str = ""
    _again: bool = False
    _late: str = ""

    @property
    def child(self) -> bool:
        """Whether this process is for one fault."""
        return self.report_to >= 0

    # -- botocore's hooks ----------------------------------------------------------------------------------

    def attach(self, client: Any) -> Callable[[], None]:
        """Hook into a client; return what takes the hooks off again."""
        hooks = {
            "before-parameter-build": self._asked,
            "before-call": self._before,
            "after-call": self._after,
            "needs-retry": self._retry,
        }
        return hooked(client, hooks)

    def simulate(self, client: Any) -> Callable[[], None]:
        """Let a client that is no part of the loop see the same stand-ins."""

        def before(model: Any, **_: Any) -> Any:
            stand_in = self.stand_ins.get((model.service_model.service_name, model.name))
            try:
                return canned(200, stand_in(self._request)) if stand_in else None
            except Refused as refused:
                return refused.answer()

        hooks = {"before-parameter-build": self._asked, "before-call": before}
        return hooked(client, hooks)

    def _asked(self, params: Any, model: Any, **_: Any) -> None:
        self._request = params
        self._violation = next(iter(violations(model.input_shape, params, model.name)), "")

    def _before(self, model: Any, **_: Any) -> Any:
        service, operation = model.service_model.service_name, model.name
        stand_in = self.stand_ins.get((service, operation))
        try:
            self._late = self.arrive(service, operation)
            if self._violation:
                raise Refused("ValidationException", self._violation)  # noqa: TRY301 - as a fault would
            if stand_in is None:
                return None
            request = self._request
            answer = stand_in(request)
            if self._again:
                self._again = False
                answer = stand_in(request)
        except Refused as refused:
            return refused.answer()
        return canned(200, answer)

    def _after(self, **_: Any) -> None:
        late, self._late = self._late, ""
        self.leave(late)

    def _retry(self, response: Any, **_: Any) -> float | None:
        if self._again and response is not None:
            self._again = False
            return 0
        return None

    # -- one call ------------------------------------------------------------------------------------------

    def arrive(self, service: str, operation: str) -> str:
        """Take note of a call that is about to be made; return the fault that comes after it, if any.

        Raises
        ------
        Refused
            When the fault is an answer of the service's.
        Died
            When it is the end of the process.
        """
        who = self.who()
        self.seen[who, service, operation] += 1
        self.operations.add((who, service, operation))
        if sum(self.seen.values()) > MAXIMUM_CALLS:
            raise RuntimeError(f"more than {MAXIMUM_CALLS} calls: the scenario does not end")
        site = Site(who, service, operation, self.seen[who, service, operation])
        if self.exploring and not self.child and self.explores(who, operation):
            self.sites += 1
            self.explored.add((who, service, operation))
            for fault in self._possible(site):
                if self._fork(site, fault):
                    return self._strike(fault)
        if not site.reads and service != "lambda":
            self.written += (f"{who} {operation}",)
        if (service, operation) in self.forbidden:
            raise Refused("AccessDeniedException", "a permission is missing", 403)
        if (who, operation) in self.lost:
            self.lost.remove((who, operation))
            return ANSWER_LOST
        out = self.where if self.fault == OUTAGE and self.active else None
        if out is not None and (who, service, operation) == (out.who, out.service, out.operation):
            return self._strike(OUTAGE)
        return ""

    def invoked(self, ended: str) -> None:
        """Take note of how an invocation of a function has ended: by the name of an error, or well.

        In a child, the first one that ends ill says which fault this is; a known one is not played on.
        """
        self.invocation += 1
        if not self.child or self._ended or not ended:
            return
        outage = self.where.who if self.fault == OUTAGE and self.where else ""
        stopped = self.fault if self.fault in (STOPPED_BEFORE, STOPPED_AFTER) else ""
        self._ended = json.dumps([self.invocation, ended, self.written, outage, stopped])
        if self._ended in self.known:
            self.report(self.known[self._ended], played=False)

    def leave(self, fault: str) -> None:
        """Take note of a call that was made and answered."""
        if fault == CRASH_AFTER:
            raise Died
        if fault == STOPPED_AFTER:
            self.stop()
            raise Died
        if fault == ANSWER_LOST:
            self.pass_by(ANSWER_TIME)
            raise ReadTimeoutError(endpoint_url="https://aws")

    def _possible(self, site: Site) -> list[str]:
        by_machine = "." in site.who
        found = [THROTTLED, ANSWER_LOST, SENT_TWICE, DENIED, INVALID, SERVER_ERROR, OUTAGE]
        if not by_machine:
            found += [CRASH_BEFORE, CRASH_AFTER]
        if by_machine or site.who.startswith(IN_MACHINES):
            found += [STOPPED_BEFORE, STOPPED_AFTER]
        cut = set(CUT_AT_READS) if site.reads else set()
        if site.operation in TOKENS:
            cut.add(SENT_TWICE)
        if site.operation in NONE_THERE:
            cut.add(INVALID)
        for fault in found:
            if fault in cut:
                self.cut[fault] += 1
        return [fault for fault in found if fault not in cut]

    def _strike(self, fault: str) -> str:
        if fault in ERRORS:
            code, status = ERRORS[fault]
            raise Refused(code, "injected", status)
        if fault == CRASH_BEFORE:
            raise Died
        if fault == STOPPED_BEFORE:
            self.stop()
            raise Died
        if fault == SENT_TWICE:
            self._again = True
        return fault

    # -- children ------------------------------------------------------------------------------------------

    def _fork(self, site: Site, fault: str) -> bool:
        """Play a fault in a child; return whether this is the child."""
        # A machine's state calls again as it called before; a death leaves the writes that were made.
        same = json.dumps(
            [fault, self.written, site.who, site.operation if "." in site.who else self.invocation]
        )
        foreseen = fault in DEATHS or "." in site.who
        if foreseen and same in self.known:
            self.cases.append(Case(str(site), fault, self.known[same], played=False))
            return False
        readable, writable = os.pipe()
        loop = asyncio.get_running_loop()
        process = os.fork()
        if process == 0:
            os.close(readable)
            asyncio._set_running_loop(loop)  # asyncio takes the child for one without
            self.report_to, self.fault, self.where = writable, fault, site
            return True
        os.close(writable)
        with open(readable, "rb") as pipe:
            text = pipe.read()
        os.waitpid(process, 0)
        told = json.loads(text) if text else {"broken": ["its process ended without a word"], "played": True}
        self.cases.append(Case(str(site), fault, told["broken"], told["played"]))
        if foreseen:
            self.known[same] = told["broken"]
        if told.get("ended"):
            self.known[told["ended"]] = told["broken"]
        return False

    def report(self, broken: list[str], *, played: bool = True) -> None:
        """End a child with what it found."""
        told = {"broken": [text[:500] for text in broken[:20]], "played": played, "ended": self._ended}
        with open(self.report_to, "wb") as pipe:
            pipe.write(json.dumps(told).encode())
        os._exit(0)


IN_MACHINES = (
    "claim_run", "preflight_run", "snapshot_dataset", "start_pipeline", "decide_run", "release_run",
    "reconcile_endpoint", "apply_deployment", "smoke_test_endpoint", "finish_deployment",
)  # fmt: skip
"""The functions that a machine calls: an execution can be stopped under them."""


def hooked(client: Any, hooks: dict[str, Callable[..., Any]]) -> Callable[[], None]:
    """Hook into a client; return what takes the hooks off again."""
    for event, hook in hooks.items():
        client.meta.events.register_first(event, hook)

    def unhook() -> None:
        for event, hook in hooks.items():
            client.meta.events.unregister(event, hook)

    return unhook


def canned(status: int, parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
    """Return an answer as botocore passes it on."""
    response = AWSResponse("https://aws", status, HTTPHeaders(), io.BytesIO())  # type: ignore[arg-type]
    metadata = {"HTTPStatusCode": status, "RequestId": "r", "HTTPHeaders": {}}
    return response, {"ResponseMetadata": metadata, **parsed}
