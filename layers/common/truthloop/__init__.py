"""Truthloop's shared package: the loop's rules, its ports, their adapters and one wiring point.

Import directions (held by ``tests/contract/test_import_directions.py``): the rules in this folder import
nothing of AWS; ``steps`` (one module per function) import rules and ports; ``aws`` implements the ports;
``wiring`` alone knows both sides.
"""
