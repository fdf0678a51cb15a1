"""What systemd, the deploy and monitoring ask."""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import SECRET

from toll import Settings, create_app, schema
from toll.database import db, make_engine, normalised_url
from toll.release import read_release

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def release(app):
    """The application has a release's id."""
    app.extensions["toll.release"] = replace(
        app.extensions["toll.release"], id="0123456789ab", revision="abc"
    )


def test_healthy_answers_name_the_release(client, release):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "release": "0123456789ab"}
    assert answer.headers["Cache-Control"] == "no-store"
    answer = client.get("/readyz")
    assert answer.status_code == 200
    head = schema.head()
    assert answer.json == {
        "status": "ok",
        "release": "0123456789ab",
        "schema": {"head": head, "database": head},
    }


@pytest.fixture
def bare(empty_url):
    """A client of an application whose database has no schema."""
    if (url := normalised_url(empty_url)).get_backend_name() == "sqlite":
        Path(url.database).touch()
    app = create_app(Settings(secret_key=SECRET, database_url=empty_url))
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def test_not_ready_without_a_schema_but_alive(bare, release_log):
    answer = bare.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["failed"] == ["schema"]
    assert answer.json["schema"] == {"head": schema.head(), "database": None}
    assert "toll migrate" in release_log.text
    assert bare.get("/healthz").status_code == 200


@pytest.fixture
def release_log(caplog):
    """What is logged, at any level."""
    caplog.set_level(logging.INFO, "toll")
    return caplog


@pytest.mark.parametrize(
    ("works_with", "status"), [([schema.head()], 200), (["another"], 503), ([], 503)]
)
def test_the_release_before_stays_ready_after_a_migration_that_works_with_it(
    client, database_url, works_with, status
):
    """That is what a handover, and going back, rely on."""
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE schema_state SET revision = '9999', works_with = :works_with"),
            {"works_with": json.dumps(works_with)},
        )
    engine.dispose()
    answer = client.get("/readyz")
    assert answer.status_code == status
    assert answer.json["schema"] == {"head": schema.head(), "database": "9999"}


def test_not_ready_once_the_interpreter_is_gone(client, monkeypatch, release_log):
    """Removed under the process, as an upgrade of the system may do: pages that import something
    for the first time fail, and this one would not."""
    monkeypatch.setattr(os, "__file__", "/usr/lib/python3.0/os.py")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["failed"]) == (503, ["interpreter"])
    assert "/usr/lib/python3.0/os.py is not on this host any more" in release_log.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all/toll.db",
        "postgresql://toll:s3cr3t-w0rd@/toll?host=/nowhere/at/all",
    ],
)
def test_not_ready_without_its_database_but_alive(url, release_log):
    """The answer says no more than that, and the log has no password."""
    app = create_app(Settings(secret_key=SECRET, database_url=url))
    client = app.test_client()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {
        "status": "unavailable",
        "release": "development",
        "failed": ["database"],
    }
    assert "the database cannot be used" in release_log.text
    assert "s3cr3t-w0rd" not in release_log.text
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200


@only_sqlite
def test_version(client, release):
    answer = client.get("/version").json
    assert answer["release"] == "0123456789ab"
    assert answer["revision"] == "abc"
    assert answer["python"] == platform.python_version()


def test_release_comes_from_the_manifest(tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"id": "0123456789ab", "revision": "abc-dirty", "files": {}}))
    release = read_release(manifest)
    assert (release.id, release.revision) == ("0123456789ab", "abc-dirty")


@pytest.mark.parametrize("content", ["", "[]", "{}", '"x"'])
def test_damaged_manifest_is_said_and_not_taken_for_development(tmp_path, caplog, content):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(content)
    assert read_release(manifest).id == "unknown"
    assert str(manifest) in caplog.text
