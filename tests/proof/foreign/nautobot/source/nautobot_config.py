"""Settings of Nautobot, as `nautobot-server init` writes them, with what the host provides."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nautobot.core.settings import *  # noqa: F403
from nautobot.core.settings import CACHES, DATABASES

INSTALLATION_METRICS_ENABLED = False
# nginx says whether the client came over HTTPS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
STATIC_ROOT = str(Path(__file__).resolve().parent / "static")
# For the build, which knows no secret.
SECRET_KEY = "build"

if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
    SECRET_KEY = Path(credentials, "secret_key").read_text().strip()
    _database = urlsplit(Path(credentials, "database_url").read_text().strip())
    DATABASES["default"].update(
        NAME=_database.path.strip("/"),
        USER=unquote(_database.username or ""),
        PASSWORD=unquote(_database.password or ""),
        HOST=_database.hostname,
        PORT=str(_database.port or ""),
    )

if redis := os.environ.get("REDIS_URL"):
    CACHES["default"]["LOCATION"] = redis.replace("?db=0", "?db=1")
    # Celery's own way to write it.
    CELERY_BROKER_URL = redis.replace("unix", "redis+socket", 1).replace("?db", "?virtual_host")
