"""What a distributed Map reads from and writes to S3."""

from __future__ import annotations

import csv
import gzip
import io
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.stepfunctions.errors import ITEM_READER, RESULT_WRITER, StateError
from local.stepfunctions.execution import Execution
from local.stepfunctions.frame import Frame
from local.stepfunctions.history import compact, iso
from local.stepfunctions.jsonata import is_expression
from local.stepfunctions.paths import select
from local.stepfunctions.shapes import parsed
from local.stepfunctions.templates import fill_template

_DELIMITERS = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}
_Item = tuple[str | None, Any]


def _arguments(frame: Frame, field: Mapping[str, Any], name: str) -> dict[str, Any]:
    if frame.jsonata:
        filled = frame.evaluate(field.get("Arguments", {}), f"{name}/Arguments")
    else:
        filled = fill_template(field.get("Parameters", {}), frame.scope(frame.effective_input()), name)
    return dict(filled)


def _most(frame: Frame, config: Mapping[str, Any]) -> int | None:
    if "MaxItemsPath" in config:
        value = select(config["MaxItemsPath"], frame.scope(frame.effective_input()), "MaxItemsPath")
    else:
        value = config.get("MaxItems")
        if is_expression(value):
            value = frame.evaluate(value, "ItemReader/ReaderConfig/MaxItems")
    return int(value) if value else None


async def read_items(frame: Frame, reader: Mapping[str, Any]) -> list[_Item]:
    """Return the items that an ItemReader names.

    Raises
    ------
    StateError
        ``States.ItemReaderFailed`` if S3 refuses or the file is not what the reader expects.
    """
    place = _arguments(frame, reader, "ItemReader")
    config = reader.get("ReaderConfig", {})
    engine = frame.execution.engine
    client = await engine.call(engine.client, "s3", frame.execution.machine.region)
    most = _most(frame, config)

    def read() -> list[_Item]:
        if reader["Resource"].endswith(":listObjectsV2"):
            return _listed(client, place, most)
        body = client.get_object(**place)["Body"].read()
        if config.get("InputType", "JSON") == "MANIFEST":
            return [(None, row) for row in _manifest(client, body, most)]
        return _parse(body, config)

    try:
        items: list[_Item] = await engine.call(read)
    except (ClientError, BotoCoreError) as error:
        raise StateError(
            ITEM_READER, f"Failed to read {compact(place)}: {error}", interpreter=True
        ) from error
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, csv.Error, OSError) as error:
        raise StateError(
            ITEM_READER,
            f"The file {compact(place)} cannot be read as the ItemReader says: {error}",
            interpreter=True,
        ) from error
    return items[:most]


def source(frame: Frame, reader: Mapping[str, Any]) -> str:
    """Return where the items come from, as the context object names it."""
    place = _arguments(frame, reader, "ItemReader")
    return f"S3://{place.get('Bucket', '')}/{place.get('Key', place.get('Prefix', ''))}"


def _listed(client: Any, place: Mapping[str, Any], most: int | None) -> list[_Item]:
    items: list[_Item] = []
    for page in client.get_paginator("list_objects_v2").paginate(**place):
        items += [
            (
                None,
                {
                    "Etag": found["ETag"],
                    "Key": found["Key"],
                    "LastModified": int(found["LastModified"].timestamp()),
                    "Size": found["Size"],
                    "StorageClass": found.get("StorageClass", "STANDARD"),
                },
            )
            for found in page.get("Contents", ())
        ]
        if most is not None and len(items) >= most:
            break
    return items


def _parse(body: bytes, config: Mapping[str, Any]) -> list[_Item]:
    kind = config.get("InputType", "JSON")
    text = body.decode("utf-8-sig")
    if kind == "CSV":
        return [(None, row) for row in _csv(text, config)]
    if kind == "JSONL":
        return [(None, json.loads(line)) for line in text.splitlines() if line.strip()]
    if kind != "JSON":
        raise ValueError(f"the InputType {kind} is not CSV, JSON, JSONL or MANIFEST")
    value = json.loads(text)
    for step in config.get("ItemsPointer", "").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list):
        raise ValueError("Attempting to map over non-iterable node.")  # noqa: TRY004 - caught with its kin
    return [(None, item) for item in value]


def _csv(text: str, config: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = csv.reader(io.StringIO(text), delimiter=_DELIMITERS[config.get("CSVDelimiter", "COMMA")])
    given = config.get("CSVHeaderLocation", "FIRST_ROW") == "GIVEN"
    header = config["CSVHeaders"] if given else next(rows, [])
    # A short row has empty fields at its end, as on AWS; a long one loses what no header names.
    return [dict(zip(header, row + [""] * (len(header) - len(row)), strict=False)) for row in rows if row]


def _manifest(client: Any, body: bytes, most: int | None) -> Iterable[dict[str, str]]:
    """Yield the rows of an S3 inventory: a manifest that names gzipped CSV files without header."""
    manifest = json.loads(body)
    header = [name.strip() for name in manifest["fileSchema"].split(",")]
    bucket = manifest["destinationBucket"].removeprefix("arn:aws:s3:::")
    count = 0
    for entry in manifest["files"]:
        data = client.get_object(Bucket=bucket, Key=entry["key"])["Body"].read()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        for row in csv.reader(io.StringIO(text)):
            if most is not None and count >= most:
                return
            count += 1
            yield dict(zip(header, row, strict=False))


def _report(child: Execution) -> dict[str, Any]:
    report = {
        "ExecutionArn": child.execution_arn,
        "Input": child.execution_input,
        "InputDetails": {"Included": True},
        "Name": child.name,
        "Output": child.output,
        "OutputDetails": {"Included": True},
        "Error": child.error,
        "Cause": child.cause,
        "RedriveCount": 0,
        "RedriveStatus": "NOT_REDRIVABLE",
        "StartDate": iso(child.start_date),
        "StateMachineArn": child.machine.arn,
        "Status": child.status,
        "StopDate": iso(child.stop_date) if child.stop_date else None,
    }
    return {key: value for key, value in report.items() if value is not None}


def transform(writer: Mapping[str, Any], children: list[Execution]) -> list[Any]:
    """Return the outputs as the WriterConfig wants them: whole reports, outputs, or their items."""
    kind = writer.get("WriterConfig", {}).get("Transformation", "COMPACT")
    if kind == "NONE":
        return [_report(child) for child in children]
    outputs = [parsed(child.output) for child in children if child.status == "SUCCEEDED"]
    if kind == "COMPACT":
        return outputs
    return [item for output in outputs for item in (output if isinstance(output, list) else [output])]


async def write_results(
    frame: Frame, writer: Mapping[str, Any], run_arn: str, children: list[Execution]
) -> Any:
    """Write the results and a manifest to S3; return where the manifest is.

    Raises
    ------
    StateError
        ``States.ResultWriterFailed`` if S3 refuses.
    """
    place = _arguments(frame, writer, "ResultWriter")
    config = {"Transformation": "NONE", "OutputType": "JSON", **writer.get("WriterConfig", {})}
    prefix = place.get("Prefix", "").rstrip("/")
    folder = f"{prefix}/{uuid.uuid4()}" if prefix else str(uuid.uuid4())
    engine = frame.execution.engine
    client = await engine.call(engine.client, "s3", frame.execution.machine.region)
    suffix = "jsonl" if config["OutputType"] == "JSONL" else "json"

    def write() -> dict[str, Any]:
        files: dict[str, list[dict[str, Any]]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
        for status in ("SUCCEEDED", "FAILED"):
            mine = [child for child in children if (child.status == "SUCCEEDED") == (status == "SUCCEEDED")]
            if not mine:
                continue
            # Failed children have no output to transform: their reports say what went wrong.
            rows = (
                transform({"WriterConfig": config}, mine) if status == "SUCCEEDED" else [*map(_report, mine)]
            )
            text = "\n".join(map(compact, rows)) if suffix == "jsonl" else compact(rows)
            key = f"{folder}/{status}_0.{suffix}"
            client.put_object(Bucket=place["Bucket"], Key=key, Body=text.encode())
            files[status].append({"Key": key, "Size": len(text.encode())})
        manifest = {"DestinationBucket": place["Bucket"], "MapRunArn": run_arn, "ResultFiles": files}
        key = f"{folder}/manifest.json"
        client.put_object(Bucket=place["Bucket"], Key=key, Body=compact(manifest).encode())
        return {"MapRunArn": run_arn, "ResultWriterDetails": {"Bucket": place["Bucket"], "Key": key}}

    try:
        return await engine.call(write)
    except (ClientError, BotoCoreError, KeyError) as error:
        raise StateError(
            RESULT_WRITER, f"Failed to write to {compact(place)}: {error}", interpreter=True
        ) from error
