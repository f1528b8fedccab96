"""Which of several labels holds, and what a dataset version is."""

from __future__ import annotations
