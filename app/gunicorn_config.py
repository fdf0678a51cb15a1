"""Settings for gunicorn started by hand: `gunicorn --config gunicorn_config.py app:app`.

A host's service has a configuration of its own, which the role gunicorn_systemd writes.
"""

from __future__ import annotations

import os
from typing import Any

__development = "TOLL_ENVIRONMENT" not in os.environ
if __development:
    os.environ["TOLL_ENVIRONMENT"] = "development"

bind = os.environ.get("TOLL_BIND", "127.0.0.1:5000")
workers = len(os.sched_getaffinity(0)) * 2 + 1
worker_class = "gthread"
threads = 2
# One import for all workers, so that in development they share one random secret key.
preload_app = True
# Nobody controls this server but the terminal that it was started in.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Say so when the environment was not chosen, and make a demo as app.py does."""
    if __development:
        server.log.warning(
            "TOLL_ENVIRONMENT is not set: running as development. "
            "Set TOLL_ENVIRONMENT=production for anything else"
        )
    application = server.app.wsgi()
    if application.extensions["toll.settings"].development:
        # Not before: the application may not be importable, which gunicorn says better.
        from toll import development

        for line in development.prepare(application):
            server.log.info(line)
