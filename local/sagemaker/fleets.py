"""A fleet: the containers of one endpoint configuration, one per variant.

An instance count above one is one process here: it stands for all instances of the variant, and
traffic shares are taken from the instance counts, not from processes.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from local.sagemaker.capture import CaptureWriter
from local.sagemaker.models import ContainerDefinition
from local.sagemaker.serving import ServingContainer, health_timeout_of
from local.sagemaker.state import Params, SageMaker


class Variant:
    """One production variant with its container."""

    def __init__(self, settings: Params, container: ServingContainer, capture: CaptureWriter | None) -> None:
        self.settings = settings
        self.name: str = settings["VariantName"]
        self.weight = float(settings.get("InitialVariantWeight", 1.0))
        self.instances = int(settings.get("InitialInstanceCount", 1))
        self.container = container
        self.capture = capture

    def summary(self) -> Params:
        """Return the variant as DescribeEndpoint lists it."""
        return {
            "VariantName": self.name,
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": self.instances,
            "DesiredInstanceCount": self.instances,
        }


class Fleet:
    """All variants of one endpoint configuration, running.

    Parameters
    ----------
    sagemaker, region, endpoint_name
        Whose fleet it is.
    config
        The endpoint configuration; later changes of the record do not reach the fleet.
    definitions
        What each variant starts, by model name; resolved when the deployment was asked for.
    retained
        Weight and instance count by variant name, when an update keeps them.
    """

    def __init__(
        self,
        sagemaker: SageMaker,
        region: str,
        endpoint_name: str,
        config: Params,
        definitions: dict[str, ContainerDefinition],
        retained: dict[str, tuple[float, int]],
    ) -> None:
        self._sagemaker = sagemaker
        self._region = region
        self._endpoint_name = endpoint_name
        self._definitions = definitions
        self._retained = retained
        self.config = copy.deepcopy(config)
        self.config_name: str = config["EndpointConfigName"]
        self.variants: dict[str, Variant] = {}

    @property
    def instances(self) -> int:
        """Instances of all variants together."""
        return sum(variant.instances for variant in self.variants.values())

    @property
    def capture_config(self) -> Params | None:
        """DataCaptureConfig, when the configuration has one."""
        return self.config.get("DataCaptureConfig")

    def start(self) -> None:
        """Start every container and wait until all are healthy.

        Raises
        ------
        JobError
            One of them is not; nothing is left running then.
        """
        try:
            for settings in self.config["ProductionVariants"]:
                self._start_variant(dict(settings))
        except BaseException:
            self.stop()
            raise

    def _start_variant(self, settings: Params) -> None:
        name = settings["VariantName"]
        if name in self._retained:
            settings["InitialVariantWeight"], settings["InitialInstanceCount"] = self._retained[name]
        container = ServingContainer(
            self._sagemaker,
            self._region,
            self._endpoint_name,
            name,
            self._definitions[settings["ModelName"]],
            health_timeout_of(settings),
        )
        variant = Variant(settings, container, None)
        self.variants[name] = variant
        container.start()
        capture = self.capture_config
        if capture and capture.get("EnableCapture", True):
            role = self._definitions[settings["ModelName"]].role_arn
            variant.capture = CaptureWriter(
                self._sagemaker.aws, self._region, role, capture, self._endpoint_name, name
            )

    def choose(self, target: str | None) -> Variant | None:
        """Return the target variant, or one by weight; None when there is no such target."""
        if target is not None:
            return self.variants.get(target)
        variants = list(self.variants.values())
        if len(variants) == 1:
            return variants[0]
        weights = [variant.weight for variant in variants]
        if not any(weights):
            return variants[0]
        return random.choices(variants, weights)[0]  # noqa: S311 - traffic splitting

    def stop(self) -> None:
        """Drain and end every container."""
        for variant in self.variants.values():
            variant.container.drain_and_stop()
            if variant.capture is not None:
                variant.capture.close()

    def pending_summary(self, status: str, message: str, since: Any) -> list[Params]:
        """Return the variants as PendingDeploymentSummary lists them."""
        entries = []
        for settings in self.config["ProductionVariants"]:
            variant = self.variants.get(settings["VariantName"])
            count = int(settings.get("InitialInstanceCount", 1))
            weight = float(settings.get("InitialVariantWeight", 1.0))
            entries.append(
                {
                    "VariantName": settings["VariantName"],
                    "InstanceType": settings.get("InstanceType"),
                    "CurrentWeight": weight,
                    "DesiredWeight": weight,
                    "CurrentInstanceCount": variant.instances if variant else 0,
                    "DesiredInstanceCount": count,
                    "VariantStatus": [{"Status": status, "StatusMessage": message, "StartTime": since}],
                }
            )
        return entries
