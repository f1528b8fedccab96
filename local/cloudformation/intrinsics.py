"""CloudFormation's intrinsic functions, conditions and references, evaluated strictly.

Nothing is passed through unresolved: a reference without a target, an unknown function or a
malformed argument raises :class:`~local.cloudformation.errors.TemplateError` with its place.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from local.cloudformation.errors import TemplateError
from local.cloudformation.template import as_text

_SUB = re.compile(r"\$\{([^!}][^}]*)\}")
_LITERAL = re.compile(r"\$\{!([^}]*)\}")
_SSM = re.compile(r"\{\{resolve:([a-z-]+):([^}]+)\}\}")
CONDITION_FUNCTIONS = frozenset({"Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals", "Condition"})
NO_VALUE = object()
"""What ``AWS::NoValue`` resolves to; its key or list item is dropped."""


class Referable(Protocol):
    """What Ref and Fn::GetAtt need of a created resource."""

    physical_id: str
    attributes: Mapping[str, Any]
    type: str


@dataclass
class Scope:
    """All that a template's functions can see."""

    pseudo: Mapping[str, Any]
    parameters: Mapping[str, Any]
    mappings: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Referable] = field(default_factory=dict)
    import_value: Callable[[str], str] | None = None
    read_ssm: Callable[[str], str] | None = None
    _evaluated: dict[str, bool] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        """Return whether the named condition is true."""
        if name not in self._evaluated:
            if name not in self.conditions:
                raise TemplateError(f"Template error: unresolved condition dependency {name}")
            # A condition that (wrongly) depends on itself must end in an error, not in recursion.
            self._evaluated[name] = False
            self._evaluated[name] = _truth(self.resolve(self.conditions[name], f"Conditions/{name}"))
        return self._evaluated[name]

    def resolve(self, value: Any, where: str) -> Any:
        """Return ``value`` with every function replaced by its result."""
        if isinstance(value, list):
            items = [self.resolve(item, f"{where}/{index}") for index, item in enumerate(value)]
            return [item for item in items if item is not NO_VALUE]
        if isinstance(value, str):
            return self._dynamic(value, where)
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), *_ = value.items()
            if name == "Ref":
                return self._ref(str(argument), where)
            if name in _FUNCTIONS:
                return _FUNCTIONS[name](self, argument, f"{where}/{name}")
            if name == "Condition" and where.startswith("Conditions/"):
                return self.holds(str(argument))
            if isinstance(name, str) and name.startswith("Fn::"):
                raise TemplateError(f"Template error: the function {name} at {where} is not supported")
        resolved = {key: self.resolve(item, f"{where}/{key}") for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def _ref(self, name: str, where: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        if name in self.resources:
            return self.resources[name].physical_id
        raise TemplateError(f"Unresolved resource dependencies [{name}] at {where}")

    def attribute(self, name: str, attribute: str, where: str) -> Any:
        """Return what ``Fn::GetAtt`` gives for a created resource."""
        if name not in self.resources:
            raise TemplateError(f"Unresolved resource dependencies [{name}] at {where}")
        resource = self.resources[name]
        if attribute not in resource.attributes:
            known = ", ".join(sorted(resource.attributes)) or "none"
            raise TemplateError(
                f"Template error: {resource.type} {name} has no attribute {attribute} at {where} "
                f"(it has: {known})"
            )
        return resource.attributes[attribute]

    def _dynamic(self, text: str, where: str) -> str:
        def replace(match: re.Match[str]) -> str:
            service, name = match.groups()
            if service != "ssm" or self.read_ssm is None:
                raise TemplateError(
                    f"Template error: the dynamic reference {match.group(0)} at {where} "
                    "is not supported (only ssm is)"
                )
            return self.read_ssm(name)

        return _SSM.sub(replace, text) if "{{resolve:" in text else text


def references(value: Any) -> Iterator[str]:
    """Yield every logical id, parameter or pseudo parameter that ``value`` mentions."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for name, argument in value.items():
            if name == "Ref" and isinstance(argument, str):
                yield argument
            elif name == "Fn::GetAtt":
                yield argument.split(".", 1)[0] if isinstance(argument, str) else str(argument[0])
            elif name == "Fn::Sub":
                text, variables = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
                for found in _SUB.findall(text):
                    if found not in variables:
                        yield found.split(".", 1)[0].strip()
                yield from references(variables)
            else:
                yield from references(argument)


def condition_names(value: Any) -> Iterator[str]:
    """Yield every condition that ``value`` uses through ``Fn::If``."""
    if isinstance(value, list):
        for item in value:
            yield from condition_names(item)
    elif isinstance(value, dict):
        for name, argument in value.items():
            if name == "Fn::If" and isinstance(argument, list) and argument:
                yield str(argument[0])
            yield from condition_names(argument)


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else as_text(value) == "true"


def _arguments(argument: Any, counts: tuple[int, ...], where: str) -> list[Any]:
    if not isinstance(argument, list) or len(argument) not in counts:
        raise TemplateError(f"Template error: {where} takes {' or '.join(map(str, counts))} arguments")
    return argument


def _get_att(scope: Scope, argument: Any, where: str) -> Any:
    if isinstance(argument, str):
        argument = argument.split(".", 1)
    if not isinstance(argument, list) or len(argument) < 2:
        raise TemplateError(f"Template error: {where} takes a logical id and an attribute name")
    name, *rest = argument
    return scope.attribute(str(name), ".".join(str(scope.resolve(part, where)) for part in rest), where)


def _sub(scope: Scope, argument: Any, where: str) -> str:
    text, given = (argument, {}) if isinstance(argument, str) else _arguments(argument, (2,), where)
    variables = {name: scope.resolve(value, f"{where}/{name}") for name, value in given.items()}

    def replace(match: re.Match[str]) -> str:
        name = match.group(1).strip()
        if name in variables:
            value = variables[name]
        elif "." in name:
            logical_id, attribute = name.split(".", 1)
            value = scope.attribute(logical_id, attribute, where)
        else:
            value = scope.resolve({"Ref": name}, where)
        if not isinstance(value, str | int | float | bool):
            raise TemplateError(f"Template error: {where}: ${{{name}}} is not a string")
        return as_text(value)

    return scope.resolve(_LITERAL.sub(r"${\1}", _SUB.sub(replace, text)), where)  # type: ignore[no-any-return]


def _join(scope: Scope, argument: Any, where: str) -> str:
    delimiter, items = _arguments(argument, (2,), where)
    values = scope.resolve(items, where)
    if not isinstance(values, list):
        raise TemplateError(f"Template error: the second argument of {where} is not a list")
    return str(delimiter).join(as_text(value) for value in values)


def _split(scope: Scope, argument: Any, where: str) -> list[str]:
    delimiter, text = _arguments(argument, (2,), where)
    return str(scope.resolve(text, where)).split(str(delimiter))


def _select(scope: Scope, argument: Any, where: str) -> Any:
    index, items = _arguments(argument, (2,), where)
    values, number = scope.resolve(items, where), int(scope.resolve(index, where))
    if not isinstance(values, list) or not 0 <= number < len(values):
        raise TemplateError(f"Template error: {where} cannot select the value at index {number}")
    return values[number]


def _if(scope: Scope, argument: Any, where: str) -> Any:
    name, yes, no = _arguments(argument, (3,), where)
    return scope.resolve(yes if scope.holds(str(name)) else no, where)


def _find_in_map(scope: Scope, argument: Any, where: str) -> Any:
    parts = _arguments(argument, (3, 4), where)
    keys = [str(scope.resolve(part, where)) for part in parts[:3]]
    level: Any = scope.mappings
    for key in keys:
        if not isinstance(level, Mapping) or key not in level:
            if len(parts) == 4:
                return scope.resolve(parts[3]["DefaultValue"], where)
            raise TemplateError(f"Template error: Unable to get mapping for {'::'.join(keys)} at {where}")
        level = level[key]
    return level


def _import_value(scope: Scope, argument: Any, where: str) -> str:
    if scope.import_value is None:
        raise TemplateError(f"Template error: Fn::ImportValue is not allowed at {where}")
    return scope.import_value(str(scope.resolve(argument, where)))


def _length(scope: Scope, argument: Any, where: str) -> int:
    return len(scope.resolve(argument, where))


def _zones(scope: Scope, argument: Any, where: str) -> list[str]:
    region = scope.resolve(argument, where) or scope.pseudo["AWS::Region"]
    return [f"{region}{zone}" for zone in "abc"]


_FUNCTIONS: dict[str, Callable[[Scope, Any, str], Any]] = {
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Split": _split,
    "Fn::Select": _select,
    "Fn::If": _if,
    "Fn::FindInMap": _find_in_map,
    "Fn::ImportValue": _import_value,
    "Fn::Length": _length,
    "Fn::GetAZs": _zones,
    "Fn::Base64": lambda scope, argument, where: base64.b64encode(
        str(scope.resolve(argument, where)).encode()
    ).decode(),
    "Fn::ToJsonString": lambda scope, argument, where: json.dumps(scope.resolve(argument, where)),
    "Fn::Equals": lambda scope, argument, where: (
        as_text(scope.resolve(_arguments(argument, (2,), where)[0], where))
        == as_text(scope.resolve(argument[1], where))
    ),
    "Fn::And": lambda scope, argument, where: all(_condition(scope, item, where) for item in argument),
    "Fn::Or": lambda scope, argument, where: any(_condition(scope, item, where) for item in argument),
    "Fn::Not": lambda scope, argument, where: (
        not _condition(scope, _arguments(argument, (1,), where)[0], where)
    ),
}


def _condition(scope: Scope, value: Any, where: str) -> bool:
    if isinstance(value, dict) and set(value) == {"Condition"}:
        return scope.holds(str(value["Condition"]))
    return _truth(scope.resolve(value, where))
