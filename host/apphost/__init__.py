"""What runs on a host for its applications: releases, handovers, health, data, backups, status.

One command for each application (`sudo shop help`), see `cli`. Each verb is a module. A fact of the
host has one owner here: where things are (`application`), the records of releases and what is live
(`records`), files (`files`), systemd (`systemd`), commands as the service (`sandbox`).

It needs nothing but the standard library of Python 3.9: an upgrade of the host's packages must not
take away what puts the host right.
"""
