"""The engine alone, with a resource type whose every step a test can hold up or break."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from local.cloudformation import stacks
from local.cloudformation.errors import TemplateError
from local.cloudformation.resources import resource_types
from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, words
from local.cloudformation.stacks import Engine, Stack
from local.context import LocalAws


class Thing(ResourceType):
    """Does what its property ``Do`` says: ``wait``, ``break-<step>`` or nothing."""

    type = "Test::Some::Thing"
    applied = words("Do Value")
    gate = threading.Event()

    def create(self, site: Site, properties: Properties) -> Created:
        if properties.get("Do") == "wait":
            self.gate.wait(10)
        self._break("create", properties)
        return Created(site.name())

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        self._break("update", new)
        return Created(physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        self._break("delete", properties)

    def _break(self, step: str, properties: Properties) -> None:
        if properties.get("Do") == f"break-{step}":
            raise RuntimeError(f"the {step} broke")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    Thing.gate.clear()
    monkeypatch.setitem(resource_types(), Thing.type, Thing())
    aws = LocalAws(1)
    yield Engine(aws)
    Thing.gate.set()
    aws.stop()


def text(**things: dict[str, Any]) -> str:
    resources = {
        name: {
            "Type": Thing.type,
            "Properties": properties,
            "DependsOn": sorted(set(things) - {name})[:index],
        }
        for index, (name, properties) in enumerate(sorted(things.items()))
    }
    return json.dumps({"Resources": resources})


def create(engine: Engine, **things: dict[str, Any]) -> Stack:
    stack = engine.new_stack("s", "us-east-1")
    engine.create(stack, engine.build(stack, text(**things), {}))
    return stack


def update(engine: Engine, stack: Stack, **things: dict[str, Any]) -> None:
    engine.update(stack, engine.build(stack, text(**things), {}))


def reasons(stack: Stack) -> list[str]:
    return [str(event.reason) for event in stack.events if event.status.endswith("_FAILED")]


def test_a_long_operation_goes_on_after_the_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a patience shorter than the operation
    monkeypatch.setattr(stacks, "PATIENCE_S", 0.05)

    # When
    stack = create(engine, A={"Do": "wait"})

    # Then it is in progress, and nothing else can be done with it meanwhile
    assert stack.status == "CREATE_IN_PROGRESS"
    with pytest.raises(TemplateError, match="CREATE_IN_PROGRESS state and can not be updated"):
        update(engine, stack, A={})
    with pytest.raises(TemplateError, match="CREATE_IN_PROGRESS state and can not be deleted"):
        engine.delete(stack, set())

    # When it may go on
    Thing.gate.set()
    deadline = time.monotonic() + 60
    while stack.busy and time.monotonic() < deadline:
        time.sleep(0.01)

    # Then
    assert stack.status == "CREATE_COMPLETE"


def test_a_handler_that_breaks_is_a_failure_with_its_reason(engine: Engine) -> None:
    stack = create(engine, A={}, B={"Do": "break-create"})

    assert stack.status == "ROLLBACK_COMPLETE"
    assert reasons(stack) == ["RuntimeError: the create broke"]
    assert not stack.resources


def test_a_rollback_that_fails_says_so(engine: Engine) -> None:
    stack = create(engine, A={"Do": "break-delete"}, B={"Do": "break-create"})

    assert stack.status == "ROLLBACK_FAILED"
    assert reasons(stack)[:2] == ["RuntimeError: the create broke", "RuntimeError: the delete broke"]
    assert set(stack.resources) == {"A"}


def test_an_update_whose_rollback_fails_says_so(engine: Engine) -> None:
    # Given a resource whose first state cannot be reached again
    stack = create(engine, A={"Do": "break-update"}, B={})

    # When
    update(engine, stack, A={"Value": 2}, B={"Do": "break-update"})

    # Then
    assert stack.status == "UPDATE_ROLLBACK_FAILED"
    assert len(reasons(stack)) >= 2


def test_rollback_can_be_forgone(engine: Engine) -> None:
    stack = create(engine, A={})
    stack.disable_rollback = True

    update(engine, stack, A={"Do": "break-update"})

    assert stack.status == "UPDATE_FAILED"
    assert reasons(stack)[0] == "RuntimeError: the update broke"


def test_what_cannot_be_deleted_keeps_the_stack(engine: Engine) -> None:
    stack = create(engine, A={}, B={"Do": "break-delete"})

    engine.delete(stack, set())
    assert stack.status == "DELETE_FAILED"
    assert "[B]" in str(stack.reason)
    assert engine.find("s", "us-east-1") is stack

    engine.delete(stack, {"B"})
    assert stack.status == "DELETE_COMPLETE"
    with pytest.raises(TemplateError, match="does not exist"):
        engine.find("s", "us-east-1")
    assert engine.find(stack.id, "us-east-1") is stack


def test_clean_up_that_fails_does_not_fail_the_update(engine: Engine) -> None:
    stack = create(engine, A={}, B={"Do": "break-delete"})

    update(engine, stack, A={"Value": 1})

    assert stack.status == "UPDATE_COMPLETE"
    assert "RuntimeError: the delete broke" in reasons(stack)
    assert set(stack.resources) == {"A"}


def test_an_engine_that_breaks_leaves_a_failed_stack(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Engine, "_create", broken)

    stack = create(engine, A={})

    assert stack.status == "CREATE_FAILED"
    assert stack.reason == "Internal failure: a bug"


def test_names_follow_the_rules(engine: Engine) -> None:
    with pytest.raises(TemplateError, match="stack name '1x' must match"):
        engine.new_stack("1x", "us-east-1")
    stack = engine.new_stack("x", "us-east-1")
    with pytest.raises(TemplateError, match="change set name 'a_b' must match"):
        engine.create_change_set(stack, "a_b", "CREATE", text(A={}))
