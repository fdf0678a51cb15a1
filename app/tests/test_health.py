"""What systemd, the deploy and monitoring ask."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace

import pytest
from conftest import SECRET

from toll import Settings, TariffError, create_app
from toll.release import read_release
from toll.settings import TARIFFS


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_healthy_answer_names_the_release(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "release": "development"}
    assert answer.headers["Cache-Control"] == "no-store"


def test_not_ready_without_its_tariffs_but_alive(tmp_path, caplog):
    """A process that cannot work again after a restart must not be handed the traffic."""
    tariffs = tmp_path / "tariffs.toml"
    shutil.copy(TARIFFS, tariffs)
    client = create_app(Settings(secret_key=SECRET, tariffs=tariffs)).test_client()
    assert client.get("/readyz").status_code == 200
    tariffs.write_text("oops")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {
        "status": "unavailable",
        "release": "development",
        "failed": ["tariffs"],
    }
    assert str(tariffs) in caplog.text
    assert client.get("/healthz").status_code == 200


def test_start_is_refused_without_a_tariff_table(tmp_path):
    with pytest.raises(TariffError, match="cannot be read"):
        create_app(Settings(secret_key=SECRET, tariffs=tmp_path / "none.toml"))


def test_version(app, client):
    app.extensions["toll.release"] = replace(
        app.extensions["toll.release"], id="0123456789ab", revision="abc"
    )
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
