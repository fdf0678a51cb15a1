"""Static files under addresses that change with their content: /static/<hash>/<name>.

Caches may keep such an address for ever, and the releases before and after a handover cannot
answer for one another. On a host nginx serves these addresses; in development this does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Blueprint, Flask, Response, current_app, send_from_directory, url_for

from toll.security import public

FOLDER = Path(__file__).with_name("static")
HASH_DIGITS = 8

blueprint = Blueprint("assets", __name__)


def content_hash(file: Path) -> str:
    """Return the first 8 hexadecimal digits of the SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:HASH_DIGITS]


def hashes() -> dict[str, str]:
    """Return the hash of every static file by its name."""
    return {file.name: content_hash(file) for file in sorted(FOLDER.iterdir()) if file.is_file()}


def init_app(app: Flask) -> None:
    """Serve the static files of `app`; their content is read once, now."""
    app.extensions["toll.assets"] = hashes()
    app.register_blueprint(blueprint)


@blueprint.app_template_global()
def static_url(name: str) -> str:
    """Return a static file's address. Raises KeyError if there is no such file."""
    # Whoever edits a file in development sees it without a restart.
    if current_app.debug:
        digest = content_hash(FOLDER / name)
    else:
        digest = current_app.extensions["toll.assets"][name]
    return url_for("assets.serve", digest=digest, name=name)


@blueprint.get("/static/<digest>/<name>")
@public
def serve(digest: str, name: str) -> Response:
    """Answer the file, whatever the hash; only with the right one may it be kept."""
    response = send_from_directory(FOLDER, name)
    if digest == current_app.extensions["toll.assets"].get(name):
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.headers["Cache-Control"] = "no-store"
    return response
