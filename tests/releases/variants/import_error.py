"""Imports a module that is not in the bundle."""

from __future__ import annotations

import importlib

apply = importlib.import_module("a_module_that_nobody_shipped").apply
