"""Step Functions executions: whether a claim's holder may still act."""

from __future__ import annotations

from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import AwsRequestFailed
from truthloop.retraining.claim import HolderState

_LIVE = frozenset({"RUNNING", "PENDING_REDRIVE"})
_UNKNOWN = frozenset({"ExecutionDoesNotExist", "StateMachineDoesNotExist", "InvalidArn"})


class StepFunctionsExecutions:
    """Implements ``ports.Executions``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def state(self, execution_arn: str) -> HolderState:
        """Say whether an execution may still act."""
        try:
            with translated():
                answer = self._client.describe_execution(executionArn=execution_arn)
        except AwsRequestFailed as error:
            if error.code in _UNKNOWN:
                return HolderState.UNKNOWN
            raise
        return HolderState.LIVE if answer["status"] in _LIVE else HolderState.ENDED
