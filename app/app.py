"""The WSGI application `app:app`; run as a program, Flask's development server."""

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
    host, _, port = os.environ.get("TOLL_BIND", "127.0.0.1:5000").rpartition(":")
    app.run(host=host, port=int(port), debug=os.environ["TOLL_ENVIRONMENT"] == "development")
