"""What the Resource of a Task names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from local.stepfunctions.shapes import UnknownIntegrationError, boto_service, operation

_LAMBDA = re.compile(r"arn:[\w-]+:lambda:([\w-]+):(\d+):function:.+")
_ACTIVITY = re.compile(r"arn:[\w-]+:states:[\w-]+:\d+:activity:.+")
_SDK = re.compile(r"arn:[\w-]+:states:([\w-]*):\d*:aws-sdk:([\w-]+):(\w+)(\.waitForTaskToken)?")
_OPTIMISED = re.compile(r"arn:[\w-]+:states:([\w-]*):\d*:(\w+):(\w+)(\.(?:sync:2|sync|waitForTaskToken))?")

_PLAIN, _TOKEN, _SYNC, _SYNC2 = "", "waitForTaskToken", "sync", "sync:2"
OPTIMISED: dict[str, dict[str, tuple[str, ...]]] = {
    "lambda": {"invoke": (_PLAIN, _TOKEN)},
    "sqs": {"sendMessage": (_PLAIN, _TOKEN)},
    "sns": {"publish": (_PLAIN, _TOKEN)},
    "events": {"putEvents": (_PLAIN, _TOKEN)},
    "dynamodb": dict.fromkeys(("getItem", "putItem", "updateItem", "deleteItem"), (_PLAIN,)),
    "states": {"startExecution": (_PLAIN, _SYNC, _SYNC2, _TOKEN)},
    "sagemaker": {
        "createTrainingJob": (_PLAIN, _SYNC),
        "createProcessingJob": (_PLAIN, _SYNC),
        "createTransformJob": (_PLAIN, _SYNC),
        "createHyperParameterTuningJob": (_PLAIN, _SYNC),
        "createModel": (_PLAIN,),
        "createEndpointConfig": (_PLAIN,),
        "createEndpoint": (_PLAIN,),
        "updateEndpoint": (_PLAIN,),
    },
}
"""The optimised integrations of the embedded AWS with their patterns; others are refused at creation."""

_BOTO = {"states": "stepfunctions"}


@dataclass(frozen=True)
class Resource:
    """A parsed Resource.

    Parameters
    ----------
    kind
        ``function``, ``activity``, ``sdk`` or ``optimised``.
    service, action
        boto's service name and the action in camel case; empty for functions and activities.
    pattern
        Empty for request-response, else ``sync``, ``sync:2`` or ``waitForTaskToken``.
    type_name, resource
        How the history calls it.
    """

    kind: str
    arn: str
    service: str = ""
    action: str = ""
    pattern: str = ""
    type_name: str = ""
    region: str = ""

    @property
    def resource(self) -> str:
        """The action with its pattern, as history events show it."""
        return f"{self.action}.{self.pattern}" if self.pattern else self.action


def parse_resource(arn: str) -> Resource:
    """Parse a Resource.

    Raises
    ------
    UnknownIntegrationError
        If it is no ARN of a function, an activity or an integration that exists here.
    """
    if _LAMBDA.fullmatch(arn):
        return Resource("function", arn, type_name="lambda")
    if _ACTIVITY.fullmatch(arn):
        return Resource("activity", arn)
    if match := _SDK.fullmatch(arn):
        region, name, action, pattern = match.groups()
        service = boto_service(name)
        operation(service, action)
        return Resource("sdk", arn, service, action, (pattern or "")[1:], f"aws-sdk:{name}", region)
    if match := _OPTIMISED.fullmatch(arn):
        region, name, action, pattern = match.groups()
        pattern = (pattern or "")[1:]
        if pattern not in OPTIMISED.get(name, {}).get(action, ()):
            raise UnknownIntegrationError(
                f"The resource provided {arn} is not recognized. The value is not a valid resource ARN, "
                "or the resource is not available in this region."
            )
        return Resource("optimised", arn, _BOTO.get(name, name), action, pattern, name, region)
    raise UnknownIntegrationError(f"The resource provided {arn} is not a valid resource ARN.")
