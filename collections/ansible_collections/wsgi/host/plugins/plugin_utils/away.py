"""Hosts that could not be reached in this run, as the callback `wsgi.host.halt` notes them.

Callbacks and the filters of a play's `hosts` run in the same process.
"""

from __future__ import annotations

# Names, in the order in which they were met.
hosts: list[str] = []
