"""List prices of SageMaker training instances, to know what a run costs before it starts.

Source: the AWS SageMaker AI price list for us-east-1, on demand, as of 2026-11. Another region or a discount
is set by the parameter ``InstancePriceUsd``.
"""

from __future__ import annotations

PRICES_AS_OF = "2026-11"
PRICES_REGION = "us-east-1"

USD_PER_HOUR: dict[str, float] = {
    "ml.p3.2xlarge": 3.825,
    "ml.p3.8xlarge": 14.688,
    "ml.p3.16xlarge": 28.152,
    "ml.p3dn.24xlarge": 35.894,
    "ml.g4dn.xlarge": 0.736,
    "ml.g4dn.2xlarge": 0.94,
    "ml.g4dn.4xlarge": 1.505,
    "ml.g4dn.8xlarge": 2.72,
    "ml.g4dn.12xlarge": 4.89,
    "ml.g4dn.16xlarge": 5.44,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.g5.4xlarge": 2.03,
    "ml.g5.8xlarge": 3.06,
    "ml.g5.12xlarge": 7.09,
    "ml.g5.16xlarge": 5.12,
    "ml.g5.24xlarge": 10.18,
    "ml.g5.48xlarge": 20.36,
    "ml.g6.2xlarge": 1.222,
    "ml.g6.4xlarge": 1.654,
    "ml.g6.12xlarge": 5.752,
    "ml.g6.16xlarge": 4.246,
    "ml.g6.24xlarge": 8.344,
    "ml.g6e.2xlarge": 2.80,
    "ml.g6e.4xlarge": 3.76,
    "ml.g6e.8xlarge": 5.66,
    "ml.g6e.12xlarge": 13.12,
    "ml.m5.xlarge": 0.23,
}
"""The P4 and P5 families are left out on purpose: their prices were cut more than once, and no figure that
we found says of when it is. `InstancePriceUsd` names them."""


def price_per_hour(instance_type: str, override: float) -> float | None:
    """Return USD per instance-hour: `override` if positive, else the list price, else None."""
    return override if override > 0 else USD_PER_HOUR.get(instance_type)


def estimate(instance_type: str, hours: float, override: float = 0.0) -> float | None:
    """Return what `hours` instance-hours cost in USD, to the cent; None when the price is not known."""
    price = price_per_hour(instance_type, override)
    return None if price is None else round(price * hours, 2)
