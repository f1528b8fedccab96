"""The ``truthloop`` command: what a person wants to know about a deployed loop."""
