"""Entry point of the training image.

``python -m training train`` runs a training job, ``prepare``, ``evaluate`` and ``monitor`` run processing
jobs. On a laptop: ``ML_BASE_DIR=/tmp/ml python -m training prepare`` with the inputs below that directory.
``rank`` is one of several processes that train together; ``train`` starts them.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys

from common import contract, logs

ENTRY_POINTS = {
    "train": "training.train:main",
    "rank": "training.train:rank",
    "prepare": "dataset.prepare:main",
    "evaluate": "evaluation.evaluate:main",
    "monitor": "monitoring.monitor:main",
}
OWN = "rank"
"""Not for people: `train` starts it."""
USAGE = f"usage: python -m training {{{'|'.join(name for name in ENTRY_POINTS if name != OWN)}}}"


def main(arguments: list[str]) -> int:
    """Run one entry point and return the exit code."""
    if len(arguments) != 1 or arguments[0] not in ENTRY_POINTS:
        print(f"{USAGE}\nnot {arguments}", file=sys.stderr)
        return 2
    logs.configure()
    # Imported here and not above: prepare and monitor must not pay for the start of torch.
    module, _, function = ENTRY_POINTS[arguments[0]].partition(":")
    own = arguments[0] == OWN
    code = contract.run(
        lambda paths: getattr(importlib.import_module(module), function)(paths), first=not own
    )
    if own and code:
        # The reason is written. Ending in good order would wait for the other processes, which wait for this.
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
