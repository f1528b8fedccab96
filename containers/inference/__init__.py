"""The inference image: an HTTP server that answers ``/ping`` and ``/invocations``."""
