"""A botocore session that starts with a third less work than boto3's, and makes the same calls.

What boto3 adds (resources, transfers, conditions) is not used here. Of the rest, most of the time goes into
reading JSON: all services' endpoints (1.2 MB) and SageMaker's 400 operations. So the extracts of both that
``make models`` writes into ``models/`` are read instead, and the look through every service's folder is left
out. What is not in an extract comes from the runtime's own botocore, as does everything of a region whose
partition the extract does not know. ``tests/contract/test_sdk_models.py`` compares both.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.loaders import JSONFileLoader, Loader

_EXTRACTS = os.path.join(os.path.dirname(__file__), "models")


class _JsonFiles(JSONFileLoader):
    """Reads data files as botocore does, but into plain dicts: ordered ones take twice the work."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of that name, without its suffix."""
        return os.path.isfile(path + ".json") or os.path.isfile(path + ".json.gz")

    def load_file(self, path: str) -> Any:
        """Return the content of a file, or None when there is none."""
        for suffix, opened in ((".json", open), (".json.gz", gzip.open)):
            if os.path.isfile(path + suffix):
                with opened(path + suffix, "rb") as file:
                    return json.loads(file.read())
        return None


class LeanLoader(Loader):
    """botocore's loader of service data, with the extracts in front where they hold.

    Parameters
    ----------
    region : str or None
        The region that clients are made for. Without one, or with one of an unknown partition, nothing but
        the runtime's own data is used.
    """

    def __init__(self, region: str | None) -> None:
        files = _JsonFiles()
        known = files.load_file(os.path.join(_EXTRACTS, "endpoints"))
        held = region is not None and any(_has(partition, region) for partition in known["partitions"])
        super().__init__(extra_search_paths=[_EXTRACTS] if held else [], file_loader=files)

    def list_available_services(self, type_name: str) -> list[str]:
        """Return the services that have a folder, without a look at the 900 files in them."""
        folders = (path for path in self.search_paths if os.path.isdir(path))
        return sorted({name for path in folders for name in os.listdir(path)})


def _has(partition: dict[str, Any], region: str) -> bool:
    return region in partition["regions"] or bool(re.match(partition["regionRegex"], region))


class Session:
    """Makes clients of AWS services from the environment's credentials and region."""

    def __init__(self) -> None:
        self._session = botocore.session.get_session()
        loader = LeanLoader(self._session.get_config_variable("region"))
        self._session.register_component("data_loader", loader)

    def client(self, service: str, config: Config) -> Any:
        """Make a client.

        Parameters
        ----------
        service : str
            botocore's name of the service.
        config : Config
            Time-outs and retries.
        """
        return self._session.create_client(service, config=config)
