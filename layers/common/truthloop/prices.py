"""List prices of SageMaker training instances, to know what a run costs before it starts.

Source: the AWS SageMaker AI price list for us-east-1, on demand, as of 2026-11. Another region or a discount
is set by the parameter ``InstancePriceUsd``.
"""

from __future__ import annotations

PRICES_AS_OF = "2026-11"
PRICES_REGION = "us-east-1"

USD_PER_HOUR: dict[str, float] = {
    "ml.p3.8xlarge": 14.688,
    "ml.g4dn.12xlarge": 4.89,
    "ml.g5.12xlarge": 7.09,
    "ml.g6.12xlarge": 5.75,
    "ml.g4dn.xlarge": 0.736,
    "ml.m5.xlarge": 0.23,
}


def price_per_hour(instance_type: str, override: float) -> float | None:
    """Return USD per instance-hour: `override` if positive, else the list price, else None."""
    return override if override > 0 else USD_PER_HOUR.get(instance_type)


def estimate(instance_type: str, hours: float, override: float = 0.0) -> float | None:
    """Return what `hours` instance-hours cost in USD, to the cent; None when the price is not known."""
    price = price_per_hour(instance_type, override)
    return None if price is None else round(price * hours, 2)
