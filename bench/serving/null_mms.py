"""sagemaker-inference on its multi-model server (Java), with the four functions of a user's inference.py.

Argument: the port. It runs the command and the configuration that ``sagemaker_inference.model_server``
makes, but for the address (loopback) and the file's place (that function writes to /etc). One worker, as we
have one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import sagemaker_inference

USER_CODE = """
import json
SCORES = {str(digit): 0.91 if digit == 7 else 0.01 for digit in range(10)}
TOP = [{"label": label, "score": SCORES[label]} for label in ("7", "0", "1")]
ANSWER = {"label": "7", "score": 0.91, "topK": TOP, "scores": SCORES, "model": "g00000001/new"}
def model_fn(model_dir):
    return ANSWER
def input_fn(data, content_type):
    return data
def predict_fn(data, model):
    return model
def output_fn(prediction, accept):
    return json.dumps(prediction)
"""


def main() -> None:
    """Become the server."""
    base = Path(tempfile.mkdtemp(prefix="mms-", dir=os.environ.get("TMPDIR")))
    code = base / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(USER_CODE)
    etc = Path(sagemaker_inference.__file__).parent / "etc"
    address = f"http://127.0.0.1:{int(sys.argv[1])}"
    settings = {
        "default_response_timeout": 60,
        "default_workers_per_model": 1,
        "inference_address": address,
        "management_address": address,
        "vmargs": "-XX:-UseContainerSupport",
        "default_service_handler": "sagemaker_inference.default_handler_service",
    }
    properties = (etc / "default-mms.properties").read_text()
    properties += "".join(f"{name}={value}\n" for name, value in settings.items())
    (base / "mms.properties").write_text(properties)
    os.environ.update(
        SAGEMAKER_BASE_DIR=str(base),
        PYTHONPATH=str(code),
        TEMP=str(base),
        TMPDIR=str(base),
        LOG_LOCATION=str(base / "logs"),
        METRICS_LOCATION=str(base / "logs"),
    )
    os.chdir(base)
    command = [str(Path(sys.executable).with_name("multi-model-server")), "--start", "--foreground"]
    command += ["--model-store", "/", "--models", f"model={base / 'model'}"]
    command += ["--mms-config", str(base / "mms.properties"), "--log-config", str(etc / "log4j2.xml")]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
