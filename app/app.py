"""The WSGI application `app:app`; run as a program, a development server with a demo in it."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("TOLL_ENVIRONMENT", "development")

from toll import SettingsError, create_app

try:
    app = create_app()
except SettingsError as error:
    # gunicorn wants the exception: it takes a plain exit for a worker to be started again.
    if __name__ == "__main__":
        sys.exit(str(error))
    raise

if __name__ == "__main__":
    from toll import development

    settings = app.extensions["toll.settings"]
    host, _, port = os.environ.get("TOLL_BIND", "127.0.0.1:5000").rpartition(":")
    # The reloader starts this program once more, and then again after each change.
    if settings.development and os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        for line in development.prepare(app):
            print(line, flush=True)
    app.run(host=host, port=int(port), debug=settings.development)
