"""The AWS::Serverless transform, by AWS's own translator, offline."""

from __future__ import annotations

import copy
import logging
from typing import Any

from local.cloudformation.errors import TemplateError

SERVERLESS = "AWS::Serverless-2016-10-31"


class _NoManagedPolicies:
    """Managed policy names resolve only by ARN here: a look-up would need IAM's full list."""

    def load(self) -> dict[str, str]:
        return {}


def transforms(template: dict[str, Any]) -> list[str]:
    """Return the macros that a template declares."""
    declared = template.get("Transform") or []
    return [str(name) for name in (declared if isinstance(declared, list) else [declared])]


def expand(template: dict[str, Any], parameters: dict[str, Any], region: str) -> dict[str, Any]:
    """Return ``template`` with its serverless resources expanded, or unchanged without the transform."""
    declared = transforms(template)
    unknown = [name for name in declared if name != SERVERLESS]
    if unknown:
        raise TemplateError(f"No transform named {', '.join(unknown)} found.")
    if not declared:
        return template
    # Imported here: the translator and its schemas cost half a second and 30 MB.
    import boto3
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.utils.py27hash_fix import (
        to_py27_compatible_template,
        undo_mark_unicode_str_in_template,
    )

    # It complains about usage metrics that it would send to AWS from inside their service.
    logging.getLogger("samtranslator.metrics.metrics").setLevel(logging.ERROR)
    fragment = copy.deepcopy(template)
    values = {**parameters, "AWS::Region": region, "AWS::Partition": "aws"}
    to_py27_compatible_template(fragment, values)
    translator = Translator(None, Parser(), boto_session=boto3.session.Session(region_name=region))
    try:
        expanded = translator.translate(
            fragment, parameter_values=values, get_managed_policy_map=_NoManagedPolicies().load
        )
    except InvalidDocumentException as error:
        causes = "; ".join(str(cause.message) for cause in error.causes) or str(error)
        raise TemplateError(f"Transform {SERVERLESS} failed with: {causes}") from error
    result: dict[str, Any] = undo_mark_unicode_str_in_template(expanded)
    result.pop("Transform", None)
    return result
