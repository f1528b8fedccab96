"""``python -m local``: the embedded AWS on one loopback port, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local.context import LocalAws

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not Key=Value")
    return name, value


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (1 to 65535)")
    return int(text)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def main(
    arguments: list[str] | None = None,
    after_deploy: Callable[[LocalAws, Mapping[str, str]], None] | None = None,
) -> int:
    """Run the server until SIGINT or SIGTERM.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; the process's own by default.
    after_deploy : callable, optional
        Called with the server and the stack's outputs before ``ready`` is printed.
    """
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    # A text default goes through the same check as a text from the command line.
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT") or "4566")
    parser.add_argument("--no-deploy", action="store_true", help="start empty, without the stack")
    parser.add_argument("--stack", default="truthloop", help="name of the stack (default: %(default)s)")
    parser.add_argument(
        "--parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="Key=Value",
        help="a parameter of the stack; may be given several times",
    )
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input does, as with its parent"
    )
    options = parser.parse_args(arguments)

    stop = threading.Event()
    starting = True

    def end(*_: Any) -> None:
        # While starting, the main thread is somewhere in a call that only an exception can end.
        if starting and not stop.is_set():
            stop.set()
            raise KeyboardInterrupt
        stop.set()

    def handle_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)

    # Before the imports, which take a second: an early Ctrl-C must end cleanly too.
    handle_signals()
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    aws = None
    try:
        from local.deploy import DeployError, deploy
        from local.server import PortInUseError, start

        try:
            aws = start(options.port)
            if not options.no_deploy:
                template, cache = ROOT / "template.yaml", ROOT / "build" / "layers"
                outputs = deploy(aws, template, options.stack, dict(options.parameter), cache=cache)
                if after_deploy is not None:
                    after_deploy(aws, outputs)
                    # Libraries that it imports may have handlers of their own (Polars takes SIGINT).
                    handle_signals()
        except (PortInUseError, DeployError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        starting = False
        print("ready", flush=True)
        stop.wait()
    except KeyboardInterrupt:
        stop.set()
    finally:
        starting = False
        if aws is not None:
            aws.stop()
    return 0


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"error: this needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is {version}")
    # Threads that wait on clients' connections would hold an ordinary exit.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
