"""The embedded AWS with what the two state machines need around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.ports import free_port
from tests.local.conftest import ROOT, LocalServer
from tests.local.lambda_helpers import running_server
from tests.statemachine.stage import Played, Plays, Stage, play_all


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start an embedded AWS of these tests' own, with room for the workers of many scenarios at once."""
    settings = {
        "TRUTHLOOP_IMAGES": str(ROOT / "tests/local/fixtures/images"),
        "TRUTHLOOP_STOP_GRACE_SECONDS": "1",
        "TRUTHLOOP_LAMBDA_MAX_IDLE": "40",
        "TRUTHLOOP_LAMBDA_MAX_RUNNING": "40",
    }
    port = free_port()
    with running_server(port, **settings):
        yield Stage(LocalServer(port), tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, stage: Stage) -> Plays:
    """Play every scenario of the module side by side: each mostly waits."""
    return play_all(stage, request.module.MACHINE, request.module.SCENARIOS)


@pytest.fixture
def run(request: pytest.FixtureRequest, played: Plays) -> Played:
    """Return what came of the scenario that decorates the test."""
    return played[request.function.__name__].result()
