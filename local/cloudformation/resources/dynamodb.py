"""AWS::DynamoDB: tables."""

from __future__ import annotations

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, pick, rename, words

_CREATE = (
    "KeySchema",
    "AttributeDefinitions",
    "BillingMode",
    "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
    "ProvisionedThroughput",
    "SSESpecification",
    "DeletionProtectionEnabled",
    "TableClass",
    "Tags",
)
_AFTER = ("TimeToLiveSpecification", "PointInTimeRecoverySpecification")


class Table(ResourceType):
    """A table with indexes, stream, time to live and recovery."""

    type = "AWS::DynamoDB::Table"
    applied = frozenset(_CREATE) | frozenset(_AFTER) | words("TableName StreamSpecification")
    required = words("KeySchema")
    create_only = words("TableName KeySchema LocalSecondaryIndexes")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the table, then what CreateTable does not take."""
        name = str(properties.get("TableName") or site.name(255))
        request = self._request(properties, _CREATE)
        site.call("dynamodb", "create_table", TableName=name, **request)
        try:
            self._after(site, name, {}, properties)
        except Exception:
            site.remove("dynamodb", "delete_table", TableName=name)
            raise
        return self._made(site, name)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Change what UpdateTable can change."""
        changes = self._request(
            {key: value for key, value in new.items() if value != old.get(key)},
            (
                "BillingMode",
                "ProvisionedThroughput",
                "SSESpecification",
                "DeletionProtectionEnabled",
                "TableClass",
            ),
        )
        if "BillingMode" in changes and "ProvisionedThroughput" in new:
            changes["ProvisionedThroughput"] = new["ProvisionedThroughput"]
        if "StreamSpecification" in old and "StreamSpecification" not in new:
            changes["StreamSpecification"] = {"StreamEnabled": False}
        if changes:
            site.call("dynamodb", "update_table", TableName=physical_id, **changes)
        self._indexes(site, physical_id, old, new)
        self._after(site, physical_id, old, new)
        arn = site.call("dynamodb", "describe_table", TableName=physical_id)["Table"]["TableArn"]
        gone = [tag["Key"] for tag in old.get("Tags", []) if tag not in new.get("Tags", [])]
        if gone:
            site.call("dynamodb", "untag_resource", ResourceArn=arn, TagKeys=gone)
        if new.get("Tags"):
            site.call("dynamodb", "tag_resource", ResourceArn=arn, Tags=new["Tags"])
        return self._made(site, physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the table, unless deletion protection is on."""
        site.remove("dynamodb", "delete_table", TableName=physical_id)

    def _request(self, properties: Properties, names: tuple[str, ...]) -> Properties:
        request = pick(properties, names)
        if "SSESpecification" in request:
            request["SSESpecification"] = rename(request["SSESpecification"], {"SSEEnabled": "Enabled"})
        if "StreamSpecification" in properties:
            request["StreamSpecification"] = {"StreamEnabled": True, **properties["StreamSpecification"]}
        return request

    def _indexes(self, site: Site, name: str, old: Properties, new: Properties) -> None:
        before = {index["IndexName"]: index for index in old.get("GlobalSecondaryIndexes", [])}
        after = {index["IndexName"]: index for index in new.get("GlobalSecondaryIndexes", [])}
        attributes = new.get("AttributeDefinitions", [])
        for key in sorted(set(before) & set(after)):
            if before[key] != after[key]:
                raise ResourceError(f"the index {key} cannot be changed in place: give it another name")
        updates = [{"Delete": {"IndexName": key}} for key in sorted(set(before) - set(after))]
        updates += [{"Create": after[key]} for key in sorted(set(after) - set(before))]
        for update in updates:
            # One index per call, as the service demands.
            site.call(
                "dynamodb",
                "update_table",
                TableName=name,
                AttributeDefinitions=attributes,
                GlobalSecondaryIndexUpdates=[update],
            )

    def _after(self, site: Site, name: str, old: Properties, new: Properties) -> None:
        before, after = (item.get("TimeToLiveSpecification") for item in (old, new))
        if after != before:
            specification = after or {**(before or {}), "Enabled": False}
            site.call(
                "dynamodb", "update_time_to_live", TableName=name, TimeToLiveSpecification=specification
            )
        recovery = new.get("PointInTimeRecoverySpecification", {"PointInTimeRecoveryEnabled": False})
        if new.get("PointInTimeRecoverySpecification") != old.get("PointInTimeRecoverySpecification"):
            site.call(
                "dynamodb",
                "update_continuous_backups",
                TableName=name,
                PointInTimeRecoverySpecification=recovery,
            )

    def _made(self, site: Site, name: str) -> Created:
        table = site.call("dynamodb", "describe_table", TableName=name)["Table"]
        attributes = {"Arn": table["TableArn"]}
        if table.get("LatestStreamArn"):
            attributes["StreamArn"] = table["LatestStreamArn"]
        return Created(name, attributes)


TYPES = (Table,)
