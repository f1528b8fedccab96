"""The embedded AWS: moto plus the adapters that make the shipped artefacts really run on one machine.

Never shipped. Nothing outside ``local/``, ``demo/``, ``bench/`` and ``tests/`` imports it.
"""
