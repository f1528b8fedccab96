"""The embedded CloudFormation: a small engine of its own in the place of moto's.

moto ignores transforms, unknown types and most properties, and does not roll back. This engine makes
every resource by calling the embedded AWS's own HTTP API, so a deployed resource is exactly what a
client would have made, and fails on whatever it would ignore. See docs/decisions.md.
"""

from __future__ import annotations

from typing import Any

from local.context import LocalAws


def install(aws: LocalAws) -> None:
    """Make the engine; the server gets its application from :func:`application`."""
    from local.cloudformation.api import CloudFormationApi
    from local.cloudformation.stacks import Engine

    CloudFormationApi.engine = Engine(aws)


def application() -> Any:
    """Return the WSGI application that answers requests to CloudFormation."""
    from flask import Flask
    from moto.core.utils import convert_to_flask_response
    from moto.moto_server.werkzeug_app import BackendRequest

    from local.cloudformation.api import CloudFormationApi

    app = Flask("cloudformation")
    app.request_class = BackendRequest
    # The server answers for what breaks off, in a form that AWS clients can read.
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule(
        "/", view_func=convert_to_flask_response(CloudFormationApi.dispatch), methods=["GET", "POST"]
    )
    return app
