"""What GetTemplateSummary and ValidateTemplate say about a template."""

from __future__ import annotations

import json
from typing import Any

from local.cloudformation import sam, template
from local.cloudformation.errors import TemplateError
from local.cloudformation.resources import resource_types


def as_json(value: Any) -> str:
    """Return a processed template as text."""
    return json.dumps(value, indent=2, default=str)


def validation(text: str) -> dict[str, Any]:
    """Return ValidateTemplate's answer, or raise what is wrong with the template's outline."""
    parsed = template.parse(text)
    kinds = {str(resource["Type"]) for resource in parsed["Resources"].values()}
    unknown = sorted(
        kind for kind in kinds - set(resource_types()) if not kind.startswith("AWS::Serverless::")
    )
    if unknown:
        raise TemplateError(f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]")
    parameters = [
        {
            "ParameterKey": name,
            "DefaultValue": template.as_text(slot["Default"]) if "Default" in slot else None,
            "NoEcho": template.as_text(slot.get("NoEcho", False)) == "true",
            "Description": slot.get("Description"),
        }
        for name, slot in (parsed.get("Parameters") or {}).items()
    ]
    return {
        "Parameters": [
            {key: value for key, value in item.items() if value is not None} for item in parameters
        ],
        "Description": parsed.get("Description", ""),
        "Capabilities": _capabilities(parsed),
        "DeclaredTransforms": sam.transforms(parsed),
    }


def summary(text: str) -> dict[str, Any]:
    """Return GetTemplateSummary's answer."""
    parsed = template.parse(text)
    parameters = []
    for name, slot in (parsed.get("Parameters") or {}).items():
        entry = {
            "ParameterKey": name,
            "ParameterType": slot.get("Type", "String"),
            "NoEcho": template.as_text(slot.get("NoEcho", False)) == "true",
            "ParameterConstraints": (
                {"AllowedValues": [template.as_text(item) for item in slot["AllowedValues"]]}
                if "AllowedValues" in slot
                else {}
            ),
        }
        if "Default" in slot:
            entry["DefaultValue"] = template.as_text(slot["Default"])
        if "Description" in slot:
            entry["Description"] = slot["Description"]
        parameters.append(entry)
    answer = {
        "Parameters": parameters,
        "Capabilities": _capabilities(parsed),
        "ResourceTypes": sorted({resource["Type"] for resource in parsed["Resources"].values()}),
        "DeclaredTransforms": sam.transforms(parsed),
        "Description": parsed.get("Description", ""),
    }
    if "Metadata" in parsed:
        answer["Metadata"] = json.dumps(parsed["Metadata"], default=str)
    return answer


def _capabilities(parsed: dict[str, Any]) -> list[str]:
    kinds = {resource["Type"] for resource in parsed["Resources"].values()}
    types = resource_types()
    needs_iam = any(kind in types and types[kind].needs_named_iam is not None for kind in kinds)
    capabilities = ["CAPABILITY_IAM"] if needs_iam or any("Serverless" in kind for kind in kinds) else []
    return capabilities + (["CAPABILITY_AUTO_EXPAND"] if sam.transforms(parsed) else [])
