"""The extracts of botocore's data in the layer say what botocore itself says."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.model import OperationModel, Shape

from truthloop.aws.session import LeanLoader, Session

LAYER = Path(__file__).resolve().parents[2] / "layers/common"
MODELS = LAYER / "truthloop/aws/models"


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("sdk_models", LAYER / "sdk_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
SERVICES = sorted(GENERATOR.services())
# Regions of three partitions, one newer than the extract, and one of a partition that it does not know.
REGIONS = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1", "ap-southeast-9", "xx-moon-1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_DATA_PATH", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


def test_the_extracts_are_those_of_the_adapters_and_of_the_locked_botocore() -> None:
    found = {str(path.relative_to(MODELS)): path.read_text() for path in MODELS.rglob("*.json")}
    assert found == GENERATOR.extracts(), "run: make models"


def facts(shape: Shape | None, seen: set[str]) -> Iterator[tuple[Any, ...]]:
    """Yield everything that serialisers and parsers read of a shape and of those within."""
    if shape is None or shape.name in seen:
        return
    seen.add(shape.name)
    members = dict(getattr(shape, "members", {}))
    inner = [getattr(shape, part) for part in ("member", "key", "value") if hasattr(shape, part)]
    about = (shape.type_name, shape.serialization, shape.metadata, getattr(shape, "enum", None))
    yield shape.name, about, {name: (m.name, m.serialization) for name, m in members.items()}
    for part in [*members.values(), *inner]:
        yield from facts(part, seen)


def test_every_operation_that_is_kept_is_whole() -> None:
    whole = botocore.session.get_session().get_service_model("sagemaker")
    session = Session()._session
    kept = session.get_service_model("sagemaker")
    assert 10 < len(kept.operation_names) < 60 < len(whole.operation_names)

    def told(operation: OperationModel) -> list[Any]:
        shapes = [operation.input_shape, operation.output_shape, *operation.error_shapes]
        return [operation.http, operation.auth_type, [list(facts(s, set())) for s in shapes]]

    for name in kept.operation_names:
        assert told(kept.operation_model(name)) == told(whole.operation_model(name)), name
    assert kept.metadata == whole.metadata


@pytest.mark.parametrize("region", REGIONS)
def test_clients_call_the_same_endpoints_with_the_same_signatures(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    whole, lean = botocore.session.Session(), Session()
    for service in SERVICES:
        expected, found = whole.create_client(service), lean.client(service, Config())
        assert described(found) == described(expected), service


def described(client: Any) -> dict[str, Any]:
    meta = client.meta
    return {
        "region": meta.region_name,
        "url": meta.endpoint_url,
        "partition": meta.partition,
        "signature": meta.config.signature_version,
        "api": meta.service_model.api_version,
        "protocol": meta.service_model.resolved_protocol,
        "signing": (client._request_signer.signing_name, client._request_signer.region_name),
    }


def test_a_region_of_an_unknown_partition_is_left_to_botocore() -> None:
    assert str(MODELS) not in LeanLoader("xx-moon-1").search_paths
    assert str(MODELS) not in LeanLoader(None).search_paths
    assert LeanLoader("eu-west-1").search_paths[0] == str(MODELS)


def test_a_newer_version_of_the_api_comes_before_the_extract(tmp_path: Path) -> None:
    # Given: the runtime's botocore has a version of SageMaker's API that the extract is not of
    newer = tmp_path / "sagemaker/2031-01-01"
    newer.mkdir(parents=True)
    with gzip.open(newer / "service-2.json.gz", "wb") as file:
        file.write(json.dumps({"metadata": {"apiVersion": "2031-01-01"}}).encode())
    loader = LeanLoader("us-east-1")
    loader.search_paths.append(str(tmp_path))
    # Then
    model = loader.load_service_model("sagemaker", "service-2")
    assert model["metadata"]["apiVersion"] == "2031-01-01"
