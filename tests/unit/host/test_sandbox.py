"""The verbs `exec` and `flask`: a program of a release with what the service may and may not do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, sandbox
from apphost.application import Application
from apphost.errors import RefusedError, UsageError
from roles.render import render

from .conftest import Programs, describe


def unit(**variables: Any) -> str:
    """The unit of a service, as gunicorn_systemd writes it."""
    given = {
        "gunicorn_systemd_name": "shop",
        "gunicorn_systemd_python": "/opt/shop/current/bin/python",
        "gunicorn_systemd_directory": "/opt/shop/current/app",
        "gunicorn_systemd_wsgi_app": "app:app",
        "gunicorn_systemd_credentials": [{"name": "secret_key", "random_bytes": 32}],
        "unit": {
            "name": "shop",
            "description": "shop",
            "sockets": ["shop.socket"],
            "python": "/opt/shop/current/bin/python",
            "directory": "/opt/shop/current/app",
            "standby": False,
        },
        **variables,
    }
    return render("gunicorn_systemd", "unit.service.j2", "Debian", **given)


@pytest.fixture
def shop(application: Application, programs: Programs, as_root: None) -> Application:
    """Release abc is live; of its programs there are `python` and `hello`."""
    path = application.releases / "abc"
    (path / "bin").mkdir(parents=True)
    (path / "app").mkdir()
    (path / "bin" / "python").touch()
    hello = path / "bin" / "hello"
    hello.write_text('#!/bin/sh\npwd; for each; do echo "$each"; done; cat; echo no >&2; exit 3\n')
    hello.chmod(0o755)
    application.current.symlink_to("releases/abc")
    return application


def test_a_command_is_not_pooled() -> None:
    """A migration waits for locks, and a copy is one long transaction."""
    # Two of them are the application's own.
    names = ("secret_key", "secret_key_direct", "database_url", "database_url_direct")
    given = [{"name": name, "value": "x"} for name in names]
    loaded = [
        each.removeprefix("LoadCredential=")
        for each in sandbox.past_the_pooler(
            sandbox.properties(unit(gunicorn_systemd_credentials=given))
        )
        if each.startswith("LoadCredential=")
    ]
    at = "/etc/shop/credentials/"
    assert loaded == [
        f"secret_key:{at}secret_key",
        f"secret_key_direct:{at}secret_key_direct",
        f"database_url:{at}database_url_direct",
        f"database_url_direct:{at}database_url_direct",
    ]
    # Nothing else is changed by that, nor is one without a pooler.
    alone = sandbox.properties(unit(gunicorn_systemd_credentials=given[:3]))
    assert sandbox.past_the_pooler(alone) == alone


def call(application: Application, *words: str) -> int:
    return cli.main(application.name, words, application.host)


def test_command_has_the_services_whole_sandbox() -> None:
    """Everything in the unit that limits or informs the service holds for a command beside it."""
    text = unit(gunicorn_systemd_unit_options={"SystemCallFilter": ["~@mount", "@chown"]})
    kept = set(sandbox.properties(text))
    own = [f"{name}={value}" for name, value in sandbox.directives(text)]
    left = {entry.partition("=")[0] for entry in own if entry not in kept}
    # About the service's life, not about what it may do; and paths that may be absent.
    assert left <= {
        *("Type", "NotifyAccess", "Sockets", "WorkingDirectory", "ExecStartPre", "ExecStart"),
        *("Restart", "RestartSec", "KillMode", "TimeoutStartSec", "TimeoutStopSec"),
        "SyslogIdentifier",
        *("RuntimeDirectory", "RuntimeDirectoryMode", "OOMPolicy", "NoExecPaths"),
    }
    for wanted in (
        "User=shop",
        "PrivateNetwork=yes",
        "LoadCredential=secret_key:/etc/shop/credentials/secret_key",
        "EnvironmentFile=/etc/shop/environment",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@chown",
    ):
        assert wanted in kept


def test_paths_that_are_there_only_with_the_service_may_be_absent() -> None:
    """Before the first start there is no /run/shop, and a migration must run all the same."""
    (paths,) = [entry for entry in sandbox.properties(unit()) if entry.startswith("NoExecPaths=")]
    assert "-/run/shop" in paths.split("=")[1].split()
    text = "[Service]\nReadWritePaths=-/a +/b -+/c\n"
    assert sandbox.properties(text) == ["ReadWritePaths=-/a -+/b -+/c"]


def test_directives_are_read_as_systemd_reads_them() -> None:
    """Comments, other sections, continued lines, repeated names, and values with an equals sign."""
    text = (
        "# /etc/systemd/system/x.service\n[Unit]\nUser=wrong\n[Service]\n; no\nUser = right\n"
        "SystemCallFilter=@a \\\n   @b\nEnvironment=A=1\nEnvironment=B=2\n[Install]\nUser=wrong\n"
    )
    assert sandbox.directives(text) == [
        ("User", "right"),
        ("SystemCallFilter", "@a @b"),
        ("Environment", "A=1"),
        ("Environment", "B=2"),
    ]


def test_arguments_reach_the_program_as_they_are(shop: Application) -> None:
    """systemd would put the value of a variable in place of a dollar and a name."""
    directory = shop.releases / "abc"
    words = ["python", "a b", "$HOME", "%n"]
    argv = sandbox.command(shop, "[Service]\nUser=shop\n", directory, words)
    assert argv[argv.index("--") + 1 :] == [f"{directory}/bin/python", "a b", "$$HOME", "%n"]
    assert "--property=Description=python of shop" in argv
    assert f"--property=WorkingDirectory={directory}/app" in argv


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report"], (None, 0, {}, ["report"])),
        (["--release", "abc", "report"], ("abc", 0, {}, ["report"])),
        (["--release=abc", "report"], ("abc", 0, {}, ["report"])),
        (["--release", "abc", "--time-limit", "60", "report"], ("abc", 60, {}, ["report"])),
        (["--time-limit=5", "--release=abc", "report"], ("abc", 5, {}, ["report"])),
        # After the command it is an option of the command.
        (["report", "--release", "abc"], (None, 0, {}, ["report", "--release", "abc"])),
        (["--release", "abc", "--", "--release"], ("abc", 0, {}, ["--release"])),
        (["--release"], ("", 0, {}, [])),
    ],
)
def test_release_is_an_option_of_its_own(arguments: list[str], expected: tuple[Any, ...]) -> None:
    assert sandbox.parse(arguments) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon"])
def test_time_limit_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"--time-limit is .* Give a number of seconds"):
        sandbox.parse(["--time-limit", value, "report"])


def test_time_limit_is_systemds(shop: Application) -> None:
    """Whoever ends the caller alone leaves the command running."""
    text = "[Service]\nRuntimeMaxSec=infinity\n"
    argv = sandbox.command(shop, text, shop.releases / "abc", ["python"], 60)
    assert [entry for entry in argv if "RuntimeMaxSec" in entry] == ["--property=RuntimeMaxSec=60"]


@pytest.mark.parametrize(
    ("release", "message", "error"),
    [
        ("gone", "There is no release gone. On this host are: abc.", RefusedError),
        ("../../etc", "Name a directory of", UsageError),
        ("", "Name a directory of", UsageError),
    ],
)
def test_release_that_is_not_there_is_named(
    shop: Application, release: str, message: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=message.replace(".", "[.]")):
        sandbox.release_directory(shop, release)
    assert sandbox.release_directory(shop, "abc") == shop.releases / "abc"
    assert sandbox.release_directory(shop, None) == shop.releases / "abc"


def test_no_release_is_live(shop: Application) -> None:
    shop.current.unlink()
    with pytest.raises(RefusedError, match="no release is live"):
        sandbox.release_directory(shop, None)


def test_release_whose_interpreter_is_gone_is_not_called_missing(shop: Application) -> None:
    """ "There is no release abc. On this host are: abc." helped nobody."""
    python = shop.releases / "abc" / "bin" / "python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    with pytest.raises(RefusedError) as refusal:
        sandbox.release_directory(shop, "abc")
    assert str(refusal.value).startswith(
        "Release abc cannot start: its interpreter /usr/bin/python3.0 is not on this host. Run "
    )


def test_program_is_looked_for_in_the_release_first(shop: Application) -> None:
    """`sudo shop exec celery` is that of the release, and `ls` that of the host."""
    directory = shop.releases / "abc"
    assert sandbox.program(directory, "hello") == f"{directory}/bin/hello"
    assert Path(sandbox.program(directory, "ls")).name == "ls"
    assert sandbox.program(directory, "/bin/ls") == "/bin/ls"
    # As in the directory in which it will run.
    assert sandbox.program(directory, "bin/manage") == f"{directory}/app/bin/manage"
    with pytest.raises(RefusedError, match=r"Neither .*/abc/bin nor PATH has a program 'celery'"):
        sandbox.program(directory, "celery")


def test_input_output_and_exit_code_are_the_callers(
    shop: Application, programs: Programs, capfd: pytest.CaptureFixture[str]
) -> None:
    result = sandbox.run(
        shop, ["hello", "a b"], release="abc", input="in\n", text=True, capture_output=True
    )
    assert (result.stdout, result.stderr, result.returncode) == (
        f"{shop.releases}/abc/app\na b\nin\n",
        "no\n",
        3,
    )
    result = sandbox.run(shop, ["hello"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert result.stdout == f"{shop.releases}/abc/app\n".encode()
    assert capfd.readouterr().err == "no\n"
    assert programs.calls("systemctl") == ["cat shop.service"] * 2


def test_exec_runs_any_program(
    shop: Application, programs: Programs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(shop, "exec", "--release=abc", "printf", "%s-", "a", "--json") == 0
    assert capfd.readouterr().out == "a---json-"
    [line] = programs.calls("systemd-run")
    assert "--property=Description=printf of shop " in line


def test_flask_is_the_command_of_the_description(
    shop: Application, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = describe(shop, commands={"flask": ["printf", "%s\n", "flask"]})
    assert call(shop, "flask", "--release", "abc", "routes", "--all") == 0
    assert capfd.readouterr().out == "flask\nroutes\n--all\n"
    describe(shop, commands={})
    assert call(shop, "flask", "routes") == 2
    assert "shop has no command for flask in its description" in capfd.readouterr().err


def test_command_that_takes_too_long_is_ended(
    shop: Application, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(shop, "exec", "--time-limit", "1", "sleep", "5") == 124
    assert "Not done within 1 s" in capfd.readouterr().err
    result = sandbox.run(shop, ["sleep", "5"], time_limit_seconds=1, capture_output=True)
    assert (result.returncode, result.stdout) == (124, b"")
    assert b"Not done within 1 s" in result.stderr
    # A failure before that is its own.
    assert call(shop, "exec", "--time-limit", "60", "false") == 1


def test_unit_that_cannot_be_read_is_named(shop: Application, programs: Programs) -> None:
    (programs.folder / "unit").unlink()
    with pytest.raises(RefusedError, match=r"shop[.]service cannot be read: .*No such file"):
        sandbox.run(shop, ["hello"])
    assert programs.calls("systemd-run") == []


def test_only_root_runs_commands(
    shop: Application, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert call(shop, "exec", "hello") == 2
    assert "use sudo" in capfd.readouterr().err


@pytest.mark.parametrize("verb", ["exec", "flask"])
def test_verb_says_how_it_is_used(
    shop: Application, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(shop, verb, "--help") == 0
    assert f"sudo shop {verb}" in capsys.readouterr().out
    assert call(shop, verb) == 64
    captured = capsys.readouterr()
    assert f"sudo shop {verb}" in captured.err
    assert captured.out == ""
