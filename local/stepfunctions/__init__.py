"""Step Functions of the embedded AWS: moto keeps the state machines, this package runs them.

The interpreter is ours because moto's needs a thread for each waiting task, parses the definition anew for
each execution, and lacks JSONata; docs/decisions.md has the comparison.
"""

from __future__ import annotations

from local.context import LocalAws


def install(aws: LocalAws) -> None:
    """Attach the engine to moto."""
    from local.stepfunctions.api import install as install_api
    from local.stepfunctions.execution import Engine
    from local.stepfunctions.running import run

    install_api(Engine(aws, run))
