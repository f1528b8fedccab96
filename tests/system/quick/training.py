"""Prepare, train and evaluate without learning anything: the files that the loop reads, at once."""

import json
import os
import sys
import time
from pathlib import Path

ML = Path(os.environ["ML_BASE_DIR"])
CONTROL = Path(os.environ["CONTROL"])
PATIENCE_SECONDS = 120
OUTPUT = ML / "processing/output"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def prepare():
    for side in ("train", "holdout"):
        write(OUTPUT / side / "examples.json", [])
    write(OUTPUT / "report/report.json", {})


def train():
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (CONTROL / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if (CONTROL / "outcome").read_text() == "fails":
        (ML / "output/failure").write_text("the test wanted this training to fail")
        sys.exit(1)
    write(ML / "model/model.json", {"labels": [str(digit) for digit in range(10)]})


def evaluate():
    dataset = json.loads((ML / "processing/input/dataset/dataset.json").read_text())
    passed = (CONTROL / "outcome").read_text() != "too-bad"
    measured = {"accuracy": 0.9 if passed else 0.1, "weightsSha256": "0" * 64}
    models = {name: {"architecture": name, **measured} for name in ("old", "new")}
    out = OUTPUT / "evaluation"
    write(
        out / "evaluation.json",
        {
            "version": 1,
            "generation": dataset["generation"],
            "datasetVersion": dataset["datasetVersion"],
            "models": {"champion": None, **models},
            "comparisons": {},
            "gate": {"passed": int(passed), "bestAccuracy": 0.9, "threshold": 0.85, "reason": "as told"},
            "recommendation": {"candidate": "new" if passed else None, "reason": "as told"},
        },
    )
    write(out / "labels.json", [str(digit) for digit in range(10)])
    for candidate in models:
        write(out / candidate / "statistics.json", {})


if __name__ == "__main__":
    {"prepare": prepare, "train": train, "evaluate": evaluate}[sys.argv[1]]()
