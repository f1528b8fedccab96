"""End a deployment: say what came of it, and take a failed package out of the running."""

from __future__ import annotations

from typing import TypedDict

from truthloop.inputs import FinishInput
from truthloop.ports import Ports
from truthloop.retraining.decision import DEPLOYED, REJECTED, SUPERSEDED, Decision
from truthloop.serving.registry import APPROVED, ModelPackage
from truthloop.serving.registry import REJECTED as PACKAGE_REJECTED
from truthloop.times import to_iso

_REASON = "Deployment failed: {}"


class FinishOutput(TypedDict):
    """What the deployment came to."""

    outcome: str
    message: str


def finish_deployment(event: object, ports: Ports) -> FinishOutput:
    """Record the deployment; reject the package of a failed one, so that the previous one is desired again.

    A package that somebody rejected meanwhile is left as it is: that decision is newer.

    Raises
    ------
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = FinishInput.parse(event)
    package, config_name = ports.registry.describe(given.package), given.config_name
    outcome, message = _settle(package, given.succeeded, given.message, ports)
    state = ports.endpoint.state()
    # The moment that the endpoint last changed names this deployment, so a retry writes the same item.
    moment = state.last_modified if state else package.created_at
    ports.table.put_decision(
        Decision(
            at=to_iso(moment),
            execution=f"deploy-{config_name}",
            generation=package.generation,
            outcome=outcome,
            reason=outcome,
            message=message,
            model_packages=(
                {"arn": package.arn, "candidate": package.candidate, "recommended": package.recommended},
            ),
        )
    )
    if outcome == DEPLOYED:
        ports.table.mark_tested(config_name, to_iso(moment))
    return {"outcome": outcome, "message": message}


def _settle(package: ModelPackage, succeeded: bool, message: str, ports: Ports) -> tuple[str, str]:
    if succeeded:
        return DEPLOYED, message or f"version {package.version} is in service"
    reason = _REASON.format(" ".join(message.split()) or "no reason was given")
    if package.approval == APPROVED:
        ports.registry.reject(package, reason)
        return REJECTED, reason
    if package.approval == PACKAGE_REJECTED and package.approval_description[:200] == reason[:200]:
        return REJECTED, reason  # an earlier attempt of this call got through
    return SUPERSEDED, f"version {package.version} is {package.approval} by now; {message}".rstrip("; ")
