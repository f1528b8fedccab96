"""What holds for every test: the files that take long are handed out first.

The tests run side by side, one file at a time (``--dist loadfile --no-loadscope-reorder``). A long file that
comes last keeps one process busy while the others have nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.browser import Browser

# Hypothesis plays the same examples each time, and none has to be fast: a loaded machine is no failure. New
# examples: ``pytest --hypothesis-profile default``.
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

SECONDS = {
    "faults/test_faults.py": 200,
    "faults/test_bad_events.py": 80,
    "system/test_demo.py": 110,
    "system/test_loop_rules.py": 100,
    "system/test_loop.py": 90,
    "system/test_readme.py": 70,
    "containers/test_containers_line.py": 60,
    "system/test_ten_thousand_uploads.py": 50,
    "containers/test_containers_training.py": 50,
    "local/test_sam_cli.py": 40,
    "statemachine/test_retrain_machine.py": 35,
    "contract/test_init_cost.py": 30,
    "model/test_claim_model.py": 30,
    "containers/test_containers_learning.py": 30,
    "containers/test_containers_own_model.py": 30,
    "system/test_auto_approval.py": 30,
    "local/test_lambda_processes.py": 30,
    "local/test_stepfunctions_integrations.py": 25,
    "containers/test_containers_inference.py": 25,
    "local/test_sagemaker_endpoints.py": 25,
    "local/test_sagemaker_jobs.py": 25,
    "containers/test_containers_check_model.py": 20,
    "containers/test_containers_prepare_scale.py": 20,
    "containers/test_containers_prepare_copies.py": 20,
    "local/test_server.py": 20,
    "statemachine/test_deploy_machine.py": 20,
    "contract/test_layer_build.py": 15,
    "containers/test_containers_pipeline.py": 15,
}
"""What the longest files take, with others beside them; ``pytest --durations=0`` tells."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = __file__.removesuffix("conftest.py")
    items.sort(key=lambda item: -SECONDS.get(str(item.path).removeprefix(tests), 0))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for a file that looks at pages."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
