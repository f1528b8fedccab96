"""Truthloop's shared package: the loop's rules, its ports, their adapters and one wiring point.

The rules have rooms: ``uploads`` (what users send), ``versions`` (what a dataset version holds),
``retraining`` (whether to train, and what came of it), ``instances`` (what a machine is and costs) and
``serving`` (what is in service); what all of them speak of lies in this folder.

Import directions (held by ``tests/contract/test_import_directions.py``): the rules import nothing of AWS;
``steps`` (one module per function) import rules and ports; ``aws`` implements the ports; ``wiring`` alone
knows both sides.
"""
