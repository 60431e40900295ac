"""The command line."""

from __future__ import annotations

from .entry import app, main

__all__ = ["app", "main"]
