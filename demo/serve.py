"""``python -m demo.serve`` (``make local``): the embedded AWS with the stack, to be driven by hand.

The stack has the demo's parameters (short polls, a small model) and the demo's base set and smoke-test
examples in its bucket; everything else is up to you and your AWS client.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from local.__main__ import main

if TYPE_CHECKING:
    from local.context import LocalAws

PARAMETERS = Path(__file__).with_name("parameters.json")


def upload_base_set(aws: LocalAws, outputs: Mapping[str, str]) -> None:
    """Put the demo's base set into the stack's bucket."""
    from demo.digits import base_objects  # a second of imports: only when main() listens for signals

    for key, body in base_objects().items():
        aws.client("s3").put_object(Bucket=outputs["DataBucketName"], Key=key, Body=body)


if __name__ == "__main__":
    parameters = [f"--parameter={name}={value}" for name, value in json.loads(PARAMETERS.read_text()).items()]
    code = main([*parameters, *sys.argv[1:]], after_deploy=upload_base_set)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that wait on clients' connections would hold an ordinary exit.
    os._exit(code)
