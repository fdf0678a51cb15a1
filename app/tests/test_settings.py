"""Start-up: what it reads, and what it refuses with which remedy."""

from __future__ import annotations

import pytest
from support import SECRET

from toll import Settings, SettingsError, create_app


def read(**environment: str) -> Settings:
    return Settings.from_environment({"STATE_DIRECTORY": "/var/lib/toll-app"} | environment)


def test_production_is_the_default_and_reads_its_secret_from_the_environment():
    settings = read(TOLL_SECRET_KEY=SECRET)
    assert not settings.development
    assert settings.secret_key == SECRET
    assert settings.proxies == 0


def test_secret_comes_from_systemds_credential(tmp_path):
    (tmp_path / "secret_key").write_text(SECRET + "\n")
    assert read(CREDENTIALS_DIRECTORY=str(tmp_path)).secret_key == SECRET


def test_environment_goes_before_the_credential(tmp_path):
    (tmp_path / "secret_key").write_text("x" * 64)
    directory = str(tmp_path)
    assert read(CREDENTIALS_DIRECTORY=directory, TOLL_SECRET_KEY=SECRET).secret_key == SECRET


def test_development_makes_up_a_secret_for_each_start():
    """A secret in the source would end up in production."""
    first, second = (read(TOLL_ENVIRONMENT="development").secret_key for _ in range(2))
    assert first != second
    assert len(first) == 64


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ["no secret key", "TOLL_SECRET_KEY", "secrets.token_hex"]),
        ({"TOLL_SECRET_KEY": "short"}, ["has 5 characters", "at least 32", "secrets.token_hex"]),
        ({"TOLL_ENVIRONMENT": "dev"}, ["TOLL_ENVIRONMENT is 'dev'", "production"]),
        ({"TOLL_PROXIES": "2"}, ["TOLL_PROXIES is '2'", "Set it to 1"]),
        (
            {"TOLL_PROXIES": "1", "TOLL_PROXY_ADDRESSES": "192.0.2.7, proxy.example"},
            ["TOLL_PROXY_ADDRESSES has 'proxy.example'", "such as 192.0.2.7"],
        ),
        (
            {"TOLL_PROXIES": "1", "TOLL_PROXY_ADDRESSES": "192.0.2.7/24"},
            ["TOLL_PROXY_ADDRESSES has '192.0.2.7/24'"],
        ),
        (
            {"TOLL_PROXY_ADDRESSES": "192.0.2.7"},
            ["TOLL_PROXY_ADDRESSES is set without TOLL_PROXIES=1"],
        ),
        ({"TOLL_ENVIRONMENT": "development", "TOLL_SECRET_KEY": "x"}, ["has 1 characters"]),
    ],
)
def test_refusal_names_the_variable_and_the_remedy(environment, words):
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment(environment)
    for word in words:
        assert word in str(refusal.value)


def test_refusal_names_every_problem_at_once_and_no_secret():
    with pytest.raises(SettingsError) as refusal:
        read(TOLL_ENVIRONMENT="prod", TOLL_PROXIES="yes", TOLL_SECRET_KEY="hunter2")
    assert "TOLL_ENVIRONMENT" in str(refusal.value)
    assert "TOLL_PROXIES" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_unreadable_credential_is_named(tmp_path):
    (tmp_path / "secret_key").mkdir()
    with pytest.raises(SettingsError, match="secret_key cannot be read"):
        read(CREDENTIALS_DIRECTORY=str(tmp_path))


def test_mistyped_variable_is_logged_with_the_nearest_name(caplog):
    """An ignored TOLL_PROXY would mean http:// addresses, and nobody would know why."""
    create_app(read(TOLL_SECRET_KEY=SECRET, TOLL_PROXY="1"))
    assert caplog.messages == [
        "TOLL_PROXY is not a setting of toll-app; did you mean TOLL_PROXIES?"
    ]


def test_the_database_is_sqlite_in_the_state_directory():
    assert read(TOLL_SECRET_KEY=SECRET).database_url == "sqlite:////var/lib/toll-app/toll.db"
    several = read(TOLL_SECRET_KEY=SECRET, STATE_DIRECTORY="/var/lib/a:/var/lib/b")
    assert several.database_url == "sqlite:////var/lib/a/toll.db"


def test_the_database_comes_from_the_environment_or_the_credential(tmp_path):
    (tmp_path / "database_url").write_text("postgresql://u:hunter2@h/d\n")
    credential = read(TOLL_SECRET_KEY=SECRET, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert credential.database_url == "postgresql://u:hunter2@h/d"
    assert "hunter2" not in repr(credential)
    given = read(
        TOLL_SECRET_KEY=SECRET,
        CREDENTIALS_DIRECTORY=str(tmp_path),
        TOLL_DATABASE_URL="sqlite:////srv/x.db",
    )
    assert given.database_url == "sqlite:////srv/x.db"


def test_development_keeps_its_data_beside_the_package():
    settings = Settings.from_environment({"TOLL_ENVIRONMENT": "development"})
    assert settings.database_url.endswith("/app/instance/toll.db")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ["There is no database", "TOLL_DATABASE_URL", "STATE_DIRECTORY"]),
        ({"TOLL_DATABASE_URL": "mysql://u:hunter2@h/d"}, ["TOLL_DATABASE_URL names", "mysql"]),
        ({"TOLL_DATABASE_URL": "hunter2"}, ["TOLL_DATABASE_URL is not a database URL"]),
    ],
)
def test_a_database_that_cannot_be_is_refused(environment, words):
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment({"TOLL_SECRET_KEY": SECRET} | environment)
    for word in words:
        assert word in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_metrics_are_kept_in_the_runtime_directory():
    assert read(TOLL_SECRET_KEY=SECRET).metrics_directory is None
    runtime = read(TOLL_SECRET_KEY=SECRET, RUNTIME_DIRECTORY="/run/toll-app")
    assert str(runtime.metrics_directory) == "/run/toll-app/metrics"
    given = read(
        TOLL_SECRET_KEY=SECRET, TOLL_METRICS_DIRECTORY="/run/x", RUNTIME_DIRECTORY="/run/y"
    )
    assert str(given.metrics_directory) == "/run/x"


def test_secret_is_not_in_the_representation():
    """Tracebacks and debuggers print it."""
    assert SECRET not in repr(read(TOLL_SECRET_KEY=SECRET))
