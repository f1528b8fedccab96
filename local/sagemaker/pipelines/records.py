"""Pipelines as they are stored: definition, description, remembered request tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

from local.sagemaker.pipelines.definition import Definition
from local.sagemaker.state import Params


@dataclass
class Pipeline:
    """A pipeline and what was started of it.

    Attributes
    ----------
    body
        Its description as DescribePipeline returns it.
    definition
        The checked form of ``body["PipelineDefinition"]``.
    tokens
        ClientRequestToken to execution ARN, for as long as the server lives.
    execution_arns
        Its executions in order of their start.
    """

    arn: str
    body: Params
    definition: Definition
    tags: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    execution_arns: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.body["PipelineName"])
