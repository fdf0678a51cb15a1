"""The WSGI application `app:app`; run as a program, a development server with a demo in it."""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("TOLL_ENVIRONMENT", "development")

from toll import SettingsError, create_app, create_commands


def is_command() -> bool:
    """Return whether `flask --app app toll …` imports this, which answers no requests."""
    return os.environ.get("FLASK_RUN_FROM_CLI") == "true" and "toll" in sys.argv


# What a start makes stays as long as the process: looking for garbage in it takes a tenth of it.
gc.disable()
try:
    app = create_commands() if is_command() else create_app()
except SettingsError as error:
    # gunicorn wants the exception: it takes a plain exit for a worker to be started again.
    if __name__ == "__main__":
        sys.exit(str(error))
    raise
finally:
    gc.freeze()
    gc.enable()

if __name__ == "__main__":
    from toll import development

    settings = app.extensions["toll.settings"]
    host, _, port = os.environ.get("TOLL_BIND", "127.0.0.1:5000").rpartition(":")
    # The reloader starts this program once more, and then again after each change.
    if settings.development and os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        for line in development.prepare(app):
            print(line, flush=True)
    app.run(host=host, port=int(port), debug=settings.development)
