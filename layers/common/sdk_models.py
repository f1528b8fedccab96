"""Write the extracts of botocore's data that ``truthloop/aws/session.py`` reads. Run by ``make models``.

SageMaker's model keeps the operations that the adapters in ``truthloop/aws`` name, with every shape that
these need; the endpoints keep the services that ``truthloop/wiring.py`` makes clients of, in every partition.
Nothing else is changed: a test writes both again and compares them, and the calls, with botocore's own.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
from botocore import xform_name

PACKAGE = Path(__file__).resolve().parent / "truthloop"
MODELS = PACKAGE / "aws/models"
EXTRACTED = "sagemaker"
"""The one service whose model is large (3.5 MB) and of which little is used; the others are read whole."""


def main() -> None:
    """Write the extracts."""
    for path, content in extracts().items():
        target = MODELS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        print(f"{target}: {len(content):,} bytes")


def extracts() -> dict[str, str]:
    """Return the content of each file below ``models/``, by its path there."""
    loader = botocore.session.get_session().get_component("data_loader")
    version = loader.determine_latest_version(EXTRACTED, "service-2")
    model = loader.load_service_model(EXTRACTED, "service-2", version)
    endpoints = loader.load_data("endpoints")
    prefixes = {
        loader.load_service_model(name, "service-2")["metadata"]["endpointPrefix"] for name in services()
    }
    return {
        f"{EXTRACTED}/{version}/service-2.json": _text(extract_model(model, words(PACKAGE / "aws"))),
        "endpoints.json": _text(extract_endpoints(endpoints, prefixes)),
    }


def services() -> set[str]:
    """Return the services that ``wiring.py`` makes clients of."""
    tree = ast.parse((PACKAGE / "wiring.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    clients = (c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "_client")
    return {str(c.args[0].value) for c in clients if isinstance(c.args[0], ast.Constant)}


def words(folder: Path) -> set[str]:
    """Return every attribute and every text in the modules of a folder: operations are named by either."""
    nodes = [node for path in sorted(folder.glob("*.py")) for node in ast.walk(ast.parse(path.read_text()))]
    texts = (n.value for n in nodes if isinstance(n, ast.Constant))
    return {n.attr for n in nodes if isinstance(n, ast.Attribute)} | {t for t in texts if isinstance(t, str)}


def extract_model(model: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """Return a service model with the operations in `used` (by their names as methods) alone."""
    operations = {name: value for name, value in model["operations"].items() if xform_name(name) in used}
    shapes: set[str] = set()
    waiting = list(_shapes_in(operations))
    while waiting:
        name = waiting.pop()
        if name not in shapes:
            shapes.add(name)
            waiting += _shapes_in(model["shapes"][name])
    kept = {name: value for name, value in model["shapes"].items() if name in shapes}
    return {**_undocumented(model), "operations": _undocumented(operations), "shapes": _undocumented(kept)}


def extract_endpoints(endpoints: dict[str, Any], prefixes: set[str]) -> dict[str, Any]:
    """Return the endpoints of some services, with all partitions and regions."""
    return {
        **endpoints,
        "partitions": [
            {**partition, "services": {k: v for k, v in partition["services"].items() if k in prefixes}}
            for partition in endpoints["partitions"]
        ],
    }


def _shapes_in(value: Any) -> Iterator[str]:
    """Yield the shapes that an operation or a shape refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for part in value.values():
            yield from _shapes_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from _shapes_in(part)


def _undocumented(value: Any) -> Any:
    """Return a copy without the texts for people; a member may be called `documentation` and stays."""
    if isinstance(value, dict):
        texts = {k for k in ("documentation", "documentationUrl") if isinstance(value.get(k), str)}
        return {k: _undocumented(v) for k, v in value.items() if k not in texts}
    return [_undocumented(part) for part in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    main()
