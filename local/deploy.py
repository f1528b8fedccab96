"""Do what ``sam build && sam deploy`` do, without the SAM CLI (which needs an environment of its own).

Local paths in the template are built as ``sam build`` builds them (a layer by its Makefile, a function
that says ``SkipBuild`` as it lies there), zipped and uploaded as ``sam package`` does; then a change
set is made and executed. Anything that ``sam build`` would build in another way is refused.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from local.cloudformation.template import load_document

log = logging.getLogger("local.deploy")

CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND")
_EXCLUDED = (".aws-sam", ".git")
"""What the SAM CLI leaves out of the copy in which a Makefile runs."""
_METADATA = frozenset({"BuildArchitecture", "BuildMethod", "SamResourceId", "SkipBuild"})
_NO_CHANGE = "didn't contain changes"


class DeployError(Exception):
    """The template could not be built, packaged or deployed."""


class HasClients(Protocol):
    """What can be deployed to: anything that makes boto3 clients."""

    def client(self, service: str) -> Any:
        """Return a boto3 client."""


def deploy(
    aws: HasClients,
    template: Path,
    stack_name: str,
    parameters: Mapping[str, str] | None = None,
    *,
    cache: Path | None = None,
    timeout_s: float = 600.0,
) -> dict[str, str]:
    """Build, package and deploy ``template`` and return the stack's outputs.

    Parameters
    ----------
    aws
        Where to.
    template
        The SAM template; paths in it are relative to its folder.
    parameters
        Parameter values; on an update, parameters that are not named keep their present value.
    cache
        Folder in which built layers are kept, by the content of their source. Building one takes
        seconds, mostly pip's.
    timeout_s
        How long the stack operation may take, seconds.

    Raises
    ------
    DeployError
        Naming what failed and why, with the failed resources of the stack.
    """
    packaged = _Packager(aws, cache).package(template)
    return _deploy(aws, json.dumps(packaged), stack_name, dict(parameters or {}), timeout_s)


# -- build and package -----------------------------------------------------------------------------


def tree_zip(folder: Path) -> bytes:
    """Return ``folder`` as a zip whose bytes depend on names, modes and contents alone."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in _files(folder):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            info.create_system = 3
            # Lambda's own user must be able to read every file, whatever the umask was here.
            info.external_attr = (path.stat().st_mode | 0o444) << 16
            out.writestr(info, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            yield Path(root, name)


def build_layer(folder: Path, logical_id: str, cache: Path | None = None) -> Path:
    """Run the layer's Makefile as ``sam build`` does and return the folder of its artefacts.

    The Makefile runs in a copy of the folder, with ``ARTIFACTS_DIR`` in its environment and the target
    ``build-<LogicalId>`` (AWS Lambda Builders, CustomMakeBuilder).
    """
    digest = hashlib.sha256(f"{logical_id} {sys.version_info[:2]}".encode())
    for path in _files(folder):
        if not set(_EXCLUDED) & set(path.parts) and "__pycache__" not in path.parts:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    home = cache or Path(tempfile.mkdtemp(prefix="truthloop-build-"))
    built = home / f"{logical_id}-{digest.hexdigest()[:24]}"
    if built.is_dir():
        return built
    makefile = folder / "Makefile"
    if not makefile.is_file():
        raise DeployError(f"{logical_id}: {makefile} is missing, and its BuildMethod is makefile")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="building-") as scratch:
        source, artifacts = Path(scratch, "source"), Path(scratch, "artifacts")
        shutil.copytree(folder, source, ignore=shutil.ignore_patterns(*_EXCLUDED))
        artifacts.mkdir()
        done = subprocess.run(
            ["make", "--makefile", str(makefile.resolve()), f"build-{logical_id}"],
            cwd=source,
            env={**os.environ, "ARTIFACTS_DIR": str(artifacts)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DeployError(
                f"{logical_id}: make build-{logical_id} failed in {folder} with {done.returncode}:\n"
                f"{done.stderr.strip() or done.stdout.strip()}"
            )
        try:
            artifacts.rename(built)
        except OSError:
            # Another process has built the same content meanwhile.
            if not built.is_dir():
                raise
    return built


class _Packager:
    """Builds and uploads what a template names by local paths."""

    def __init__(self, aws: HasClients, cache: Path | None) -> None:
        self._s3 = aws.client("s3")
        self._account = aws.client("sts").get_caller_identity()["Account"]
        self._region = self._s3.meta.region_name
        self._cache = cache
        self._bucket = f"deploy-artifacts-{self._account}-{self._region}"
        self._ready = False

    def package(self, path: Path) -> dict[str, Any]:
        """Return the template with every local path replaced by what was uploaded for it."""
        template = _read(path)
        for logical_id, resource in (template.get("Resources") or {}).items():
            handle = _LOCAL_PATHS.get(str(resource.get("Type")))
            if handle is not None:
                handle(self, path.parent, logical_id, resource)
        return template

    def function(self, base: Path, logical_id: str, resource: dict[str, Any]) -> None:
        """Zip the folder of a function."""
        properties = resource.setdefault("Properties", {})
        folder = _local(properties.get("CodeUri"), base)
        if folder is None:
            return
        metadata = _metadata(logical_id, resource)
        if str(metadata.get("SkipBuild", False)).lower() != "true":
            method = metadata.get("BuildMethod")
            raise DeployError(
                f"{logical_id}: the build method {method!r} is not supported here; "
                "a function needs `Metadata: {SkipBuild: true}` (its folder is the zip)"
            )
        properties["CodeUri"] = self._upload(self._zip(logical_id, folder), ".zip")

    def layer(self, base: Path, logical_id: str, resource: dict[str, Any]) -> None:
        """Build and zip a layer."""
        properties = resource.setdefault("Properties", {})
        folder = _local(properties.get("ContentUri"), base)
        if folder is None:
            return
        metadata = _metadata(logical_id, resource)
        if str(metadata.get("SkipBuild", False)).lower() != "true":
            if metadata.get("BuildMethod") != "makefile":
                raise DeployError(
                    f"{logical_id}: the build method {metadata.get('BuildMethod')!r} is not supported here; "
                    "a layer needs `Metadata: {BuildMethod: makefile}`"
                )
            if not folder.is_dir():
                raise DeployError(f"{logical_id}: {folder} is not a folder")
            folder = build_layer(folder, logical_id, self._cache)
        properties["ContentUri"] = self._upload(self._zip(logical_id, folder), ".zip")

    def state_machine(self, base: Path, logical_id: str, resource: dict[str, Any]) -> None:
        """Upload a state machine's definition as it is."""
        properties = resource.setdefault("Properties", {})
        path = _local(properties.get("DefinitionUri"), base)
        if path is None:
            return
        if not path.is_file():
            raise DeployError(f"{logical_id}: the definition {path} does not exist")
        properties["DefinitionUri"] = self._upload(path.read_bytes())

    def application(self, base: Path, logical_id: str, resource: dict[str, Any]) -> None:
        """Package and upload a nested template."""
        key = "TemplateURL" if resource["Type"] == "AWS::CloudFormation::Stack" else "Location"
        properties = resource.setdefault("Properties", {})
        path = _local(properties.get(key), base)
        if path is None:
            return
        if not path.is_file():
            raise DeployError(f"{logical_id}: the nested template {path} does not exist")
        uri = self._upload(json.dumps(self.package(path)).encode(), ".template")
        endpoint = self._s3.meta.endpoint_url.rstrip("/")
        properties[key] = uri.replace("s3:/", endpoint, 1)

    def _zip(self, logical_id: str, folder: Path) -> bytes:
        if not folder.is_dir():
            raise DeployError(f"{logical_id}: {folder} is not a folder")
        return tree_zip(folder)

    def _upload(self, content: bytes, suffix: str = "") -> str:
        if not self._ready:
            self._make_bucket()
        key = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        return f"s3://{self._bucket}/{key}"

    def _make_bucket(self) -> None:
        buckets = {bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"]}
        if self._bucket not in buckets:
            place: dict[str, Any] = {}
            if self._region != "us-east-1":
                place = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            self._s3.create_bucket(Bucket=self._bucket, **place)
        self._ready = True


_LOCAL_PATHS: dict[str, Callable[[_Packager, Path, str, dict[str, Any]], None]] = {
    "AWS::CloudFormation::Stack": _Packager.application,
    "AWS::Serverless::Application": _Packager.application,
    "AWS::Serverless::Function": _Packager.function,
    "AWS::Serverless::LayerVersion": _Packager.layer,
    "AWS::Serverless::StateMachine": _Packager.state_machine,
}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DeployError(f"the template {path} does not exist")
    try:
        template = load_document(path.read_text())
    except Exception as error:
        raise DeployError(f"{path}: {error}") from error
    if not isinstance(template, dict):
        raise DeployError(f"{path} is not a template")
    return copy.deepcopy(template)


def _local(value: Any, base: Path) -> Path | None:
    """Return the local path that ``value`` names, or None if it names something else."""
    if not isinstance(value, str) or value.startswith(("s3://", "http://", "https://")):
        return None
    return base / value


def _metadata(logical_id: str, resource: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = resource.get("Metadata") or {}
    odd = sorted(set(metadata) - _METADATA)
    if odd:
        raise DeployError(f"{logical_id}: the metadata {', '.join(odd)} is not supported here")
    return metadata


# -- deploy ----------------------------------------------------------------------------------------


def _deploy(
    aws: HasClients, body: str, stack_name: str, parameters: dict[str, str], timeout_s: float
) -> dict[str, str]:
    client = aws.client("cloudformation")
    live = _describe(client, stack_name)
    if live is not None and live["StackStatus"] == "ROLLBACK_COMPLETE":
        # As the SAM CLI does: such a stack can only be deleted.
        client.delete_stack(StackName=stack_name)
        live = None
    updating = live is not None and live["StackStatus"] != "REVIEW_IN_PROGRESS"
    declared = json.loads(body).get("Parameters") or {}
    given: list[dict[str, Any]] = [
        {"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()
    ]
    if updating and live is not None:
        kept = {item["ParameterKey"] for item in live.get("Parameters", [])} & set(declared) - set(parameters)
        given += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)]
    try:
        change_set = client.create_change_set(
            StackName=stack_name,
            ChangeSetName=f"deploy-{time.time_ns()}",
            ChangeSetType="UPDATE" if updating else "CREATE",
            TemplateBody=body,
            Parameters=given,
            Capabilities=list(CAPABILITIES),
        )
    except ClientError as error:
        raise DeployError(f"stack {stack_name}: {error.response['Error']['Message']}") from error
    described = client.describe_change_set(ChangeSetName=change_set["Id"])
    if described["Status"] == "FAILED":
        if _NO_CHANGE in described["StatusReason"]:
            return _outputs(_described(client, stack_name))
        if not updating:
            # An empty stack under review is of no use to anybody.
            client.delete_stack(StackName=stack_name)
        raise DeployError(f"stack {stack_name}: {described['StatusReason']}")
    seen = {event["EventId"] for event in _events(client, change_set["StackId"])}
    client.execute_change_set(ChangeSetName=change_set["Id"])
    deadline = time.monotonic() + timeout_s
    while (stack := _described(client, change_set["StackId"]))["StackStatus"].endswith("_IN_PROGRESS"):
        if time.monotonic() > deadline:
            raise DeployError(f"stack {stack_name} is still {stack['StackStatus']} after {timeout_s:.0f} s")
        time.sleep(0.1)
    if stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise DeployError(_failures(client, stack, seen))
    return _outputs(stack)


def _describe(client: Any, name: str) -> dict[str, Any] | None:
    try:
        return _described(client, name)
    except client.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def _described(client: Any, name: str) -> dict[str, Any]:
    return client.describe_stacks(StackName=name)["Stacks"][0]  # type: ignore[no-any-return]


def _events(client: Any, stack_id: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("describe_stack_events").paginate(StackName=stack_id)
    return [event for page in pages for event in page["StackEvents"]]


def _failures(client: Any, stack: dict[str, Any], seen: set[str]) -> str:
    lines = [f"stack {stack['StackName']} is {stack['StackStatus']}:"]
    for event in reversed(_events(client, stack["StackId"])):
        failed = event["ResourceStatus"].endswith("_FAILED")
        if failed and event["EventId"] not in seen:
            reason = event.get("ResourceStatusReason", "no reason given")
            lines.append(f"  {event['LogicalResourceId']} ({event['ResourceType']}): {reason}")
    return "\n".join(lines)


def _outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
