"""What setup-production.sh and setup-domain.sh refuse, and what they see on a server.

The functions of setup/lib.sh run in bash, with a process table and a root of the test's own.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.plugin_utils.rendering import MANAGED
from conftest import PROJECT

BIN = Path(sys.executable).parent
SETUP = PROJECT / "setup"
SCRIPTS = ("setup-production.sh", "setup-domain.sh")
LOOPBACK = "0100007F"
ANY = "00000000"
ANY6 = "0" * 32

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs bash code after setup/lib.sh, on a server that has nothing but the test's files."""
    for name in ("proc/net", "nginx", "etc"):
        (tmp_path / name).mkdir(parents=True)
    for table in ("tcp", "tcp6"):
        (tmp_path / "proc/net" / table).write_text("  sl  local_address ...\n")

    def run(
        code: str, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        prelude = f"""
            set -euo pipefail
            source {SETUP}/lib.sh
            program=setup-production
            proc={tmp_path}/proc
            nginx={tmp_path}/nginx
            taken={tmp_path}/etc/taken-over
            choices={tmp_path}/etc/choices.yml
            before_web={tmp_path}/etc/before
            unit_file={tmp_path}/etc/toll-app.service
            os_release={tmp_path}/etc/os-release
            systemctl() {{ :; }}
            # nginx is installed where a test has made one.
            command() {{
              if [[ $* == "-v nginx" ]]; then declare -F nginx; else builtin command "$@"; fi
            }}
        """
        return subprocess.run(
            # What a shell starts in the background ignores SIGINT, and so do its children.
            ["env", "--default-signal=INT", "bash", "-c", f"{prelude}\n{code}", "bash", *arguments],
            capture_output=True,
            text=True,
            stdin=stdin,
            check=False,
        )

    return run


def listen(
    root: Path,
    port: int,
    pid: int,
    comm: str,
    *,
    address: str = LOOPBACK,
    unit: str = "",
    argv: str = "",
) -> None:
    """Add a process that listens on a port to the process table."""
    inode = 1000 * pid + port
    table = root / "proc/net/tcp" if len(address) == 8 else root / "proc/net/tcp6"
    with table.open("a") as file:
        file.write(
            f"   0: {address}:{port:04X} {'0' * len(address)}:0000 0A 0:0 0:0 0 0 0 {inode} 1\n"
        )
    process = root / "proc" / str(pid)
    (process / "fd").mkdir(parents=True, exist_ok=True)
    (process / "fd" / "3").symlink_to(f"socket:[{inode}]")
    (process / "comm").write_text(f"{comm}\n")
    (process / "cgroup").write_text(f"0::/system.slice/{unit or 'session-3.scope'}\n")
    (process / "cmdline").write_text("\0".join((argv or comm).split()) + "\0")
    (process / "cwd").symlink_to("/srv/app")


def problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a refusal listed."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "nothing was changed" in done.stderr
    return [line.strip()[2:] for line in done.stderr.splitlines() if line.startswith("  - ")]


# --- The system ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_needs_no_root(script: str, argument: str) -> None:
    done = subprocess.run([PROJECT / script, argument], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: sudo ./{script}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_is_refused(script: str) -> None:
    """A misspelt --staging would use up the real authority's limits."""
    done = subprocess.run(
        [PROJECT / script, "--stagin"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no option --stagin" in done.stderr
    assert "usage: " in done.stderr


def test_without_root_it_is_refused(call: Call) -> None:
    done = call("check_root 1000")
    assert done.returncode == 2
    assert "this needs root: run it as `sudo" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_without_root_nothing_is_written() -> None:
    """The refusal comes before the log, which an ordinary user could not open."""
    # Not below pytest's own directory, which is closed to others.
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        copy.chmod(0o755)
        for part in ("setup-production.sh", "setup/lib.sh", "setup/apt.sh", "setup/steps/site.yml"):
            (copy / part).parent.mkdir(exist_ok=True)
            (copy / part).write_bytes((PROJECT / part).read_bytes())
        done = subprocess.run(
            ["bash", copy / "setup-production.sh"],
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            cwd="/",
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert "setup-production: this needs root: run it as `sudo" in done.stderr


@pytest.mark.parametrize(
    "release", ['ID=debian\nVERSION_ID="12"\n', "ID=debian\nVERSION_ID='13'\n"]
)
def test_debian_12_and_13_pass(call: Call, tmp_path: Path, release: str) -> None:
    (tmp_path / "etc/os-release").write_text(release)
    done = call(
        f"uname() {{ echo x86_64; }}; systemd_running={tmp_path}; check_system; refuse_problems"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("release", "named"),
    [
        (
            'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nVERSION_ID="24.04"\n',
            "this is Ubuntu 24.04 LTS",
        ),
        (
            'PRETTY_NAME="Debian GNU/Linux 11"\nID=debian\nVERSION_ID="11"\n',
            "this is Debian GNU/Linux 11",
        ),
        ("ID=debian\n", "this is an unknown system"),  # testing has no number
        (None, "this is an unknown system"),
    ],
)
def test_another_system_is_refused(
    call: Call, tmp_path: Path, release: str | None, named: str
) -> None:
    if release is not None:
        (tmp_path / "etc/os-release").write_text(release)
    found = problems(call(f"systemd_running={tmp_path}; check_system; refuse_problems"))
    assert len(found) == 1
    assert found[0].startswith(named)
    assert "sets up Debian 12 and 13" in found[0]


def test_all_problems_are_told_at_once(call: Call, tmp_path: Path) -> None:
    """Somebody who mends one should not come back for the next."""
    (tmp_path / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    found = problems(
        call(
            "uname() { echo riscv64; }; systemd_running=/nonexistent; free_mib() { echo 10 /; };"
            "check_system; check_disk; refuse_problems"
        )
    )
    assert [problem.split(":")[0] for problem in found] == [
        "the processor is riscv64, for which no release can be built",
        "systemd does not run this system",
        "the file system / has 10 MiB free, and 1000 MiB are needed",
    ]


def test_disk_is_counted_by_file_system(call: Call) -> None:
    """A large /var does not help a full /opt, and one file system has to hold all that is on it."""
    free = 'free_mib() { case $1 in /opt) echo "299 /opt" ;; *) echo "700 /" ;; esac; }'
    found = problems(call(f"{free}; check_disk; refuse_problems"))
    assert [problem.split(":")[0] for problem in found] == [
        "the file system /opt has 299 MiB free, and 300 MiB are needed"
    ]


def test_free_space_is_that_of_the_nearest_parent(call: Call, tmp_path: Path) -> None:
    """On a bare server most of the directories are not there yet."""
    done = call(
        'read -r free mount < <(free_mib "$1/not/yet"); [[ $free -ge 0 && -d $mount ]]',
        str(tmp_path),
    )
    assert done.returncode == 0


# --- Ports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [ANY, LOOPBACK, ANY6])
def test_a_port_that_another_program_holds_is_named(
    call: Call, tmp_path: Path, address: str
) -> None:
    listen(tmp_path, 5000, 812, "registry", address=address, unit="docker-registry.service")
    main = "systemctl() { [[ $2 == --property=MainPID || $1 == show ]] && echo 812; }"
    assert problems(call(f"{main}; look_at_application; refuse_problems")) == [
        "port 5000 is taken by registry (pid 812, docker-registry.service): stop it with "
        "`systemctl disable --now docker-registry.service`, or let it use another port."
    ]


def test_a_process_without_a_service_is_killed_by_its_number(call: Call, tmp_path: Path) -> None:
    """`systemctl stop session-3.scope` would end the administrator's own session."""
    listen(tmp_path, 443, 99, "caddy", address=ANY6)
    assert problems(call("look_at_web_ports; refuse_problems")) == [
        "port 443 is taken by caddy (pid 99, session-3.scope): stop it with `kill 99`, "
        "or let it use another port."
    ]


def test_nginx_may_hold_its_ports(call: Call, tmp_path: Path) -> None:
    listen(tmp_path, 80, 70, "nginx", address=ANY, unit="nginx.service")
    done = call("look_at_web_ports; refuse_problems")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_listener_elsewhere_does_not_count(call: Call, tmp_path: Path) -> None:
    """Port 5000 of another address, a connection of a client, and 15000 are free for all."""
    listen(tmp_path, 5000, 10, "registry", address="0101A8C0")
    listen(tmp_path, 15000, 11, "pebble")
    table = tmp_path / "proc/net/tcp"
    table.write_text(
        table.read_text() + f"   0: {LOOPBACK}:1388 {LOOPBACK}:9999 01 0:0 0:0 0 0 0 77 1\n"
    )
    done = call("look_at_application; refuse_problems; ((${#found[@]} == 0))")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_cannot_be_seen_is_said_so(call: Call, tmp_path: Path) -> None:
    listen(tmp_path, 80, 10, "hidden")
    (tmp_path / "proc/10/fd/3").unlink()
    found = problems(call("look_at_web_ports; refuse_problems"))
    assert found == [
        "port 80 is taken by a process that cannot be seen: look with `ss -ltnp`, and stop it."
    ]


def test_a_socket_unit_is_named(call: Call, tmp_path: Path) -> None:
    """The process that holds its socket is systemd itself, which nobody should kill."""
    listen(tmp_path, 80, 1, "systemd", address=ANY6)
    listed = "[::]:8080 b.socket b.service\n[::]:80 cockpit.socket c.service"
    listing = f"systemctl() {{ echo '{listed}'; }}"
    assert problems(call(f"{listing}; look_at_web_ports; refuse_problems")) == [
        "port 80 is taken by cockpit.socket: stop it with `systemctl disable --now cockpit.socket`."
    ]


def test_our_own_socket_is_no_problem(call: Call, tmp_path: Path) -> None:
    listen(tmp_path, 5000, 1, "systemd")
    listing = "systemctl() { echo '127.0.0.1:5000 toll-app.socket toll-app.service'; }"
    done = call(f"{listing}; look_at_application; refuse_problems; ((${{#found[@]}} == 0))")
    assert (done.returncode, done.stderr) == (0, "")


# --- What was set up by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("comm", ["python3", "python3.11", "flask", "gunicorn"])
def test_a_hand_started_application_is_found(call: Call, tmp_path: Path, comm: str) -> None:
    listen(tmp_path, 5000, 812, comm, argv="python3 app.py", address=ANY)
    done = call('look_at_application; refuse_problems; printf "%s\\n" "$old_pid" "${found[@]}"')
    assert done.stdout.splitlines() == [
        "812",
        f"{comm} (pid 812, session-3.scope) listens on port 5000, started as `python3 app.py` "
        "in /srv/app: it is stopped",
    ]


def test_what_is_stopped_may_end_between_two_looks(call: Call, tmp_path: Path) -> None:
    """Its socket is listed and nobody has it: `kill 0` would end the run and its caller."""
    listen(tmp_path, 5000, 812, "python3")
    (tmp_path / "proc/812/fd/3").unlink()
    code = 'old_pid=812; kill() { echo "kill $*"; }; sleep() { : >"$proc/net/tcp"; }; stop_old'
    done = call(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        (True, "python3 (pid 812, app.service): something starts it again, perhaps runit (pid 7)"),
        (False, "a process that cannot be seen: something starts it again, perhaps a process that"),
    ],
)
def test_what_does_not_stop_is_named(call: Call, tmp_path: Path, seen: bool, named: str) -> None:
    listen(tmp_path, 5000, 812, "python3", unit="app.service")
    if seen:
        (tmp_path / "proc/812/status").write_text("Pid:\t812\nPPid:\t7\n")
        (tmp_path / "proc/7").mkdir()
        (tmp_path / "proc/7/comm").write_text("runit\n")
    else:
        (tmp_path / "proc/812/fd/3").unlink()
    waited = 'clock=0; now() { echo "$clock"; }; sleep() { clock=20000; }'
    done = call(f"old_pid=812; kill() {{ :; }}; {waited}; stop_old")
    assert done.returncode == 1
    assert f"port 5000 is still taken by {named}" in done.stderr


def test_a_unit_of_our_name_is_found(call: Call, tmp_path: Path) -> None:
    unit = tmp_path / "toll-app.service"
    unit.write_text("[Service]\nExecStart=/srv/run\n")
    show = f"systemctl() {{ [[ $4 == toll-app.service ]] && echo {unit} || true; }}"
    done = call(f'{show}; look_at_units; printf "%s\\n" "${{old_units[@]}}" "${{found[@]}}"')
    assert done.stdout.splitlines() == [
        "toll-app.service",
        f"the unit {unit} was not written by this project: it is stopped and replaced",
    ]
    unit.write_text(f"#\n# {MANAGED}\n#\n[Unit]\n")
    assert call(f"{show}; look_at_units; ((${{#found[@]}} == 0))").returncode == 0


def site(root: Path, name: str, text: str) -> None:
    """Add a site to an nginx of the distribution's."""
    path = root / "nginx" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_the_distributions_nginx_is_found(call: Call, tmp_path: Path) -> None:
    site(tmp_path, "nginx.conf", "user www-data;\n")
    site(tmp_path, "sites-enabled/default", "server { listen 80 default_server; }\n")
    site(
        tmp_path,
        "sites-enabled/shop",
        "server { location / { proxy_pass http://127.0.0.1:5000; } }\n",
    )
    done = call('look_at_nginx; refuse_problems; printf "%s\\n" "$old_nginx" "${found[@]}"')
    assert done.stdout.splitlines() == [
        "true",
        "nginx has a configuration that is not this project's (sites-enabled/default "
        "sites-enabled/shop): it is replaced",
    ]


APPLICATION = "location / { proxy_pass http://127.0.0.1:5000; }"
TO_HTTPS = "return 301 https://$host$request_uri;"


@pytest.mark.parametrize(
    "blocks",
    [
        "server { server_name _; root /var/www/html; location / { try_files $uri =404; } }",
        "server { server_name localhost; location / { root /usr/share/nginx/html; index a; } }",
        f"server {{ server_name a.example.com; {APPLICATION} }}",
        "server { location / { proxy_pass http://[::1]:5000/; } }",
        "server { set $backend http://localhost:5000; location / { proxy_pass $backend; } }",
        "server { location / { uwsgi_pass unix:/run/toll_app.sock; } }",
        "upstream app { server 127.0.0.1:5000; } server { location / { proxy_pass http://app/; } }",
        # As certbot leaves it.
        f"server {{ server_name a.example.com; {APPLICATION} listen 443 ssl; }}"
        f" server {{ if ($host = a.example.com) {{ {TO_HTTPS} }} # managed by Certbot\n"
        " server_name a.example.com; listen 80; return 404; }",
        f"server {{ {TO_HTTPS} location /.well-known/acme-challenge/ {{ root /srv/acme; }} }}",
        # What leads from another name to ours, and over TLS, as certbot leaves it.
        f"server {{ server_name a.example.com www.a.example.com; {TO_HTTPS} }}"
        " server { server_name www.a.example.com; return 301 https://a.example.com$request_uri;"
        " include /etc/letsencrypt/options-ssl-nginx.conf; }"
        f" server {{ server_name a.example.com; {APPLICATION} }}\n"
        "# configuration file /etc/letsencrypt/options-ssl-nginx.conf:\nssl_protocols TLSv1.3;",
        f"server {{ server_name a.example.com; {APPLICATION} }} server {{ server_name www;"
        " location / { return 301 https://a.example.com:443$request_uri; } }",
        "server { include snippets/app*.conf; }\n"
        f"# configuration file {{nginx}}/snippets/app.conf:\n{APPLICATION}",
        "map $a $b { '{' 1; } log_format x 'server {' \"$a}\"; # server {\n",
    ],
)
def test_sites_that_may_go(call: Call, tmp_path: Path, blocks: str) -> None:
    site(tmp_path, "nginx.conf", "user www-data;\n")
    site(tmp_path, "conf.d/site.conf", f"{blocks}\n".replace("{nginx}", f"{tmp_path}/nginx"))
    done = call("look_at_nginx; refuse_problems; echo ${#found[@]}")
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("place", "blocks", "named"),
    [
        ("sites-enabled/blog", "server { server_name blog; root /srv/blog; }", "blog"),
        ("sites-enabled/default", "server { server_name wiki; root /srv/wiki; }", "wiki"),
        # Not to the application, or not all of it.
        *(
            (
                "conf.d/sites.conf",
                f"server {{ server_name a.example.com; {APPLICATION} }}"
                f" server {{ server_name wiki; {text} }}",
                "wiki",
            )
            for text in (
                "return 301 https://a.example.com:8443$request_uri;",
                "return 302 https://sso.example.org/?rd=https://a.example.com/;",
                "location /old { return 301 https://a.example.com/; }",
                "location = / { return 301 https://a.example.com/; }",
                "if ($request_uri ~ /old) { return 301 https://a.example.com/; }",
                "return 301 https://a.example.com/; location /wiki { try_files $uri =404; }",
            )
        ),
        ("sites-enabled/default", "server { root /srv/wiki; }", "a site without a name"),
        ("sites-enabled/default", "server { server_name wiki; root /var/www/html; }", "wiki"),
        (
            "conf.d/default.conf",
            "server { root /var/www/html; location /php { fastcgi_pass unix:/run/php.sock; } }",
            "a site without a name",
        ),
        (
            "conf.d/sites.conf",
            f"server {{ server_name a; {APPLICATION} }} server {{ server_name wiki; root /wiki; }}",
            "wiki",
        ),
        (
            "conf.d/sites.conf",
            f"server {{ server_name a; {APPLICATION} }} server {{ server_name a; root /wiki; }}",
            "a",
        ),
        (
            "conf.d/registry.conf",
            "server { server_name registry; location / { proxy_pass http://10.0.0.7:5000; } }",
            "registry",
        ),
        (
            "conf.d/wiki.conf",
            "server { server_name wiki.tollapp.com; proxy_pass http://127.0.0.1:50000; }",
            "wiki.tollapp.com",
        ),
        (
            "conf.d/old.conf",
            "server { server_name old; return 301 https://new.example.org$request_uri; }",
            "old",
        ),
        (
            "conf.d/www.conf",
            f"server {{ server_name a; {APPLICATION} }}"
            " server { server_name www; return 301 https://a/; location /wiki { root /srv; } }",
            "www",
        ),
        (
            "conf.d/wiki.conf",
            f"server {{ server_name a; {APPLICATION} }} server {{ server_name wiki;"
            " root /var/www/html; location /toll { return 301 https://a/; } }",
            "wiki",
        ),
        (
            "conf.d/wiki.conf",
            "server { server_name wiki; root /srv/wiki;"
            " add_header Content-Security-Policy \"connect-src 'self' http://localhost:5000\"; }",
            "wiki",
        ),
        (
            "conf.d/wiki.conf",
            "server { server_name wiki; include /srv/wiki.conf; }\n"
            "# configuration file /srv/wiki.conf:\nlocation / { root /srv/wiki; }",
            "wiki",
        ),
        (
            "conf.d/shop.conf",
            "server { server_name shop; return 301 http://localhost:8080/; }",
            "shop",
        ),
        ("nginx.conf", "http { server { server_name wiki; root /srv/wiki; } }", "wiki"),
        (
            "nginx.conf",
            "stream { server { listen 25; proxy_pass db:25; } }",
            "a site without a name",
        ),
    ],
)
def test_a_site_of_something_else_is_never_replaced(
    call: Call, tmp_path: Path, place: str, blocks: str, named: str
) -> None:
    """--yes says that this application may be replaced, and not that a blog may go."""
    site(tmp_path, "nginx.conf", "user www-data;\n")
    site(tmp_path, place, f"{blocks}\n")
    (problem,) = problems(call("look_at_nginx; refuse_problems"))
    assert problem.startswith(
        f"nginx serves {named} in {tmp_path}/nginx/{place}, which is not this application's"
    )


def test_nginx_itself_says_what_it_reads(call: Call, tmp_path: Path) -> None:
    """A configuration may include other folders."""
    site(tmp_path, "nginx.conf", "http { include /srv/vhosts/*.conf; }\n")
    dump = (
        "nginx: [warn] conflicting server name\n"
        f"# configuration file {tmp_path}/nginx/nginx.conf:\nhttp {{ include /srv/vhosts/*; }}\n\n"
        "# configuration file /srv/vhosts/shop.conf:\nserver { server_name shop; root /shop; }\n"
    )
    (tmp_path / "dump").write_text(dump)
    asked = f'nginx() {{ [[ "$1 $3" == "-T $nginx/nginx.conf" ]] && cat {tmp_path}/dump; }}'
    (problem,) = problems(call(f"{asked}; look_at_nginx; refuse_problems"))
    assert problem.startswith("nginx serves shop in /srv/vhosts/shop.conf, which is not this")


def test_a_configuration_that_nginx_does_not_take_is_refused(call: Call, tmp_path: Path) -> None:
    site(tmp_path, "nginx.conf", "http {\n")
    broken = "nginx() { echo 'nginx: [emerg] unexpected end of file' >&2; return 1; }"
    (problem,) = problems(call(f"{broken}; look_at_nginx; refuse_problems"))
    assert problem.startswith(
        "nginx does not take its own configuration (nginx: [emerg] unexpected end of file), so"
    )


def test_what_is_ours_is_not_asked_for_again(call: Call, tmp_path: Path) -> None:
    """A first run may have ended between nginx's package and its configuration."""
    site(tmp_path, "nginx.conf", "user www-data;\n")
    (tmp_path / "etc/taken-over").touch()
    done = call("look_around; refuse_problems; ((${#found[@]} == 0))")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_control_node_set_up_is_left_to_it(call: Call, tmp_path: Path) -> None:
    """The domain stands in its inventory, and a run from here would know nothing of it."""
    (tmp_path / "etc/toll-app.service").write_text(f"#\n# {MANAGED}\n#\n[Unit]\n")
    found = problems(call("look_around; refuse_problems"))
    assert len(found) == 1
    assert found[0].startswith("toll-app was set up here from a control node: go on from there")
    (tmp_path / "etc/choices.yml").touch()
    assert call("look_around; refuse_problems").returncode == 0


def typed(call: Call, code: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run code at a terminal at which somebody types."""
    ours, terminal = os.openpty()
    os.write(ours, text.encode())
    try:
        return call(code, stdin=terminal)
    finally:
        os.close(ours)
        os.close(terminal)


def test_somebody_at_a_terminal_is_asked(call: Call) -> None:
    done = typed(call, "found=('a thing'); agree_to_replace ''; echo replaced", "yes\n")
    assert done.stdout.endswith("Go on? [yes/no] replaced\n")
    done = typed(call, "found=('a thing'); agree_to_replace ''; echo replaced", "no\n")
    assert done.returncode == 2
    assert "nothing was changed." in done.stderr


def test_nobody_there_to_ask_is_no_yes(call: Call) -> None:
    done = call("found=('a thing'); agree_to_replace ''")
    assert done.returncode == 2
    assert "  - a thing" in done.stdout
    assert "nothing was changed: run it again with --yes" in done.stderr
    assert call("found=('a thing'); agree_to_replace --yes").returncode == 0
    assert call("agree_to_replace ''").stdout == ""


@pytest.mark.parametrize(
    ("answer", "agreed"),
    [("yes", True), ("y", True), ("YES", True), ("no", False), ("", False), ("yesterday", False)],
)
def test_only_yes_is_a_yes(call: Call, answer: str, agreed: bool) -> None:
    done = call('agrees "Go on?" <<<"$1"', answer)
    assert (done.returncode == 0) is agreed


# --- What it needs from elsewhere ----------------------------------------------------------------


def test_package_lists_that_cannot_be_fetched_are_said_so(call: Call, tmp_path: Path) -> None:
    done = call(
        f"""
        log={tmp_path}/log
        dpkg-query() {{ echo 'installed curl'; }}
        apt-get() {{ echo 'E: Failed to fetch: Temporary failure resolving' >>"$log"; return 100; }}
        install_packages >>"$log"
        """
    )
    assert done.returncode == 1
    assert "Debian's package lists cannot be fetched (E: Failed to fetch" in done.stderr
    assert "network, name server, proxy" in done.stderr
    assert "run the same command again" in done.stderr


def test_nothing_is_fetched_when_nothing_is_missing(call: Call) -> None:
    """A server that has lost its network can still be set right."""
    done = call(
        """
        dpkg-query() { printf 'installed %s\\n' "${packages[@]}"; }
        apt-get() { echo asked; return 1; }
        install_packages
        """
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_package_index_that_is_not_reached_leaves_no_half_environment(
    call: Call, tmp_path: Path
) -> None:
    """pip is asked for real, of a port where nobody listens."""
    done = call(
        f"""
        log={tmp_path}/log; state={tmp_path}/state; venv=$state/venv
        export PIP_INDEX_URL=https://127.0.0.1:9/simple PIP_CONFIG_FILE=/dev/null
        unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
        install_ansible >"$log" 2>&1
        """
    )
    assert done.returncode == 1
    assert "Ansible cannot be fetched from the Python package index (ERROR: " in done.stderr
    assert "/etc/pip.conf" in done.stderr
    assert not (tmp_path / "state/venv").exists()


def test_a_command_that_fails_without_a_word_shows_the_log(call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = call(f"log={log}; echo the reason >>$log; trap ended EXIT; false")
    assert done.returncode == 1
    assert "a command failed (exit status 1)" in done.stderr
    assert "the reason" in done.stderr


# --- After a failure -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("serves() { false; }", "What served before was started again, with"),
        ("serves() { true; }", "The new toll-app serves."),
        ("serves() { false; }; echo 'exit 3' >$copy/restore.sh", "does not start any more"),
        (
            """serves() { false; }; echo "echo 'Start the application as'" >>$copy/restore.sh""",
            "What served before was started again, with {}/restore.sh.\n"
            "What was started by hand has to be started by hand again: see {}/found.txt",
        ),
    ],
)
def test_what_served_before_is_brought_back(
    call: Call, tmp_path: Path, code: str, words: str
) -> None:
    """By its own script, and only where nothing serves."""
    done = call(f"""
        log={tmp_path}/log; copy={tmp_path}; exec 3>&1 4>&2
        echo 'echo restored' >$copy/restore.sh
        {code}
        bring_back
    """)
    assert done.returncode == 0, done.stderr
    assert words.replace("{}", str(tmp_path)) in done.stdout + done.stderr
    assert ("restored" in done.stdout) == ("started again" in words)


def production(call: Call, root: Path, replaced: str, run: str) -> subprocess.CompletedProcess[str]:
    """Run setup-production.sh where nothing is installed, stopped or brought back for real."""
    _, script = (PROJECT / "setup-production.sh").read_text().split("\nbegin\n")
    return call(f"""
        log={root}/log; logs={root}; backups={root}/backups; yes=--yes; : >"$choices"
        check_server() {{ look_around; found=({replaced}); }}
        prepare_control() {{ :; }}; write_inventory() {{ :; }}; stop_old() {{ :; }}
        serves() {{ false; }}; summary() {{ :; }}; address() {{ :; }}
        run_playbook() {{ {run}; }}
        trap ended EXIT; trap interrupted INT
        # Its restore.sh, which would look for units of this machine.
        bash() {{ : >"$taken"; }}
        {script}
    """)


def test_a_run_that_was_cut_off_leaves_the_way_back_to_the_next(call: Call, tmp_path: Path) -> None:
    """The next one does not find any more what the first one has stopped."""
    first = production(call, tmp_path, "'an old unit'", "kill -INT $$")
    assert first.returncode == 130
    (copy,) = (tmp_path / "backups").iterdir()
    assert f"Or bring back what served before: {copy}/restore.sh" in first.stderr
    second = production(call, tmp_path, "", "false")
    assert second.returncode == 1
    assert f"What served before was started again, with {copy}/restore.sh." in second.stdout
    # Then a run begins anew, and one that has come to its end needs no way back.
    third = production(call, tmp_path, "", "false")
    assert "restore.sh" not in third.stdout + third.stderr
    production(call, tmp_path, "'an old unit'", "kill -INT $$")
    fourth = production(call, tmp_path, "", "true")
    assert fourth.returncode == 0, fourth.stderr
    assert "restore.sh brings it back" in fourth.stdout
    assert "restore.sh" not in production(call, tmp_path, "", "false").stdout


def test_what_was_replaced_before_is_kept_beside_what_is_found_now(
    call: Call, tmp_path: Path
) -> None:
    """Somebody may start the old application by hand between the two."""
    production(call, tmp_path, "'an old unit'", "kill -INT $$")
    (copy,) = (tmp_path / "backups").iterdir()
    copy = copy.rename(copy.with_name("first"))
    (tmp_path / "etc/taken-over").write_text(str(copy))
    second = production(call, tmp_path, "'a process'", "false")
    assert f"started again, with {copy}/restore.sh" in second.stdout
    assert len(list((tmp_path / "backups").iterdir())) == 2


def test_where_nothing_was_replaced_nothing_is_brought_back(call: Call, tmp_path: Path) -> None:
    done = call(f"log={tmp_path}/log; exec 3>&1 4>&2; copy=; serves() {{ false; }}; bring_back")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- The inventory -------------------------------------------------------------------------------


def inventory(call: Call, root: Path, code: str = "") -> dict[str, object]:
    """Write the inventory, and return the choices in it."""
    done = call(
        f"{code}\ninventory={root}/inv; choices=$inventory/group_vars/web/choices.yml;"
        f" settings=$inventory/group_vars/web/main.yml; before_web=$inventory/group_vars/toll_app;"
        f" backups={root}/backups; write_inventory"
    )
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load((root / "inv/group_vars/web/choices.yml").read_text()))


def host_variables(root: Path) -> dict[str, Any]:
    """What Ansible makes of the inventory for its one host."""
    done = subprocess.run(
        [
            *(BIN / "ansible", "all", f"--inventory={root}/inv/hosts.yml", "--connection=local"),
            *("--module-name=ansible.builtin.debug", "--args=var=hostvars[inventory_hostname]"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
    )
    answer = yaml.safe_load(done.stdout.split("SUCCESS => \n")[1])
    return dict(answer["hostvars[inventory_hostname]"])


def test_without_a_domain_the_site_answers_under_every_name(call: Call, tmp_path: Path) -> None:
    chosen = inventory(call, tmp_path, "hostname() { echo Web1.Example.com; }")
    assert chosen == {
        "setup_domains": ["web1.example.com"],
        "setup_default_site": True,
        "certbot_obtain": False,
        "monitoring_probe_address": "127.0.0.1:443",
    }
    hosts = yaml.safe_load((tmp_path / "inv/hosts.yml").read_text())["web"]["hosts"]
    assert hosts["web1.example.com"]["ansible_connection"] == "local"


def test_what_was_chosen_reaches_the_application(call: Call, tmp_path: Path) -> None:
    """The choice stands in one file and the description in another, which the operator edits."""
    inventory(call, tmp_path, "hostname() { echo web1.example.com; }")
    described = host_variables(tmp_path)["applications"]["toll-app"]
    assert described == {
        "role": "toll_app",
        "domains": ["web1.example.com"],
        "site": {"default": True},
    }
    choices = tmp_path / "inv/group_vars/web/choices.yml"
    choices.write_text("setup_domains: [app.example.com, www.example.com]\n")
    described = host_variables(tmp_path)["applications"]["toll-app"]
    assert described["domains"] == ["app.example.com", "www.example.com"]
    assert described["site"] == {"default": False}


@pytest.mark.parametrize("name", ["my_server", "10.0.0.1", "", "-web"])
def test_a_name_that_no_certificate_can_have_is_replaced(
    call: Call, tmp_path: Path, name: str
) -> None:
    chosen = inventory(call, tmp_path, f"hostname() {{ echo '{name}'; }}")
    assert chosen["setup_domains"] == ["toll-app.internal"]


def test_choices_and_settings_are_not_written_again(call: Call, tmp_path: Path) -> None:
    inventory(call, tmp_path)
    folder = tmp_path / "inv/group_vars/web"
    (folder / "choices.yml").write_text("setup_domains: [app.example.com]\n")
    (folder / "main.yml").write_text("gunicorn_systemd_workers: 2\n")
    assert inventory(call, tmp_path) == {"setup_domains": ["app.example.com"]}
    assert (folder / "main.yml").read_text() == "gunicorn_systemd_workers: 2\n"


def test_an_older_inventory_is_carried_over(call: Call, tmp_path: Path) -> None:
    """A server that was set up before keeps its domain and its settings when it is upgraded."""
    before = tmp_path / "inv/group_vars/toll_app"
    before.mkdir(parents=True)
    (before / "choices.yml").write_text(
        "---\ntoll_app_domains: [app.example.com]\ncertbot_email: ops@example.com\n"
    )
    (before / "main.yml").write_text(
        "---\n# Your settings.\n\nmonitoring_enabled: true\n# toll_app_environment: {}\n"
    )
    assert inventory(call, tmp_path) == {
        "setup_domains": ["app.example.com"],
        "certbot_email": "ops@example.com",
    }
    found = host_variables(tmp_path)
    assert found["applications"]["toll-app"]["domains"] == ["app.example.com"]
    assert found["monitoring_enabled"] is True
    assert not before.exists()
    kept = list((tmp_path / "backups").glob("settings-*/main.yml"))
    assert [path.read_text().startswith("---\n# Your settings.") for path in kept] == [True]


def test_an_older_inventory_is_no_control_node(call: Call, tmp_path: Path) -> None:
    (tmp_path / "etc/toll-app.service").write_text(f"#\n# {MANAGED}\n#\n[Unit]\n")
    (tmp_path / "etc/before").mkdir()
    (tmp_path / "etc/before/choices.yml").touch()
    assert call("look_around; refuse_problems").returncode == 0


def test_only_root_reads_the_inventory(call: Call, tmp_path: Path) -> None:
    """The operator may write a secret into it."""
    inventory(call, tmp_path)
    for path in (tmp_path / "inv").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


# --- The domain ----------------------------------------------------------------------------------


def domain(
    call: Call, root: Path, code: str, *arguments: str, **options: int
) -> subprocess.CompletedProcess[str]:
    """Run a function of setup-domain.sh with its arguments read."""
    text = (PROJECT / "setup-domain.sh").read_text().split("\nbegin\n")[0]
    functions = text.split('/setup/lib.sh"\n', 1)[1]
    there = f"inventory={root}/inv settings={root}/main.yml"
    return call(f"{there}\n{functions}\n{code}", *arguments, **options)


def test_what_is_missing_is_asked_for(call: Call, tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    os.write(ours, b"a.example.com www.example.com\nops@example.com\n")
    done = domain(call, tmp_path, "ask_for_the_rest; choice", stdin=terminal)
    os.close(ours)
    os.close(terminal)
    assert (
        "domain, such as app.example.com: e-mail address, such as ops@example.com: " in done.stdout
    )
    chosen = yaml.safe_load(done.stdout.split("---\n")[1])
    assert chosen["setup_domains"] == ["a.example.com", "www.example.com"]
    assert chosen["certbot_email"] == "ops@example.com"


def test_what_is_missing_is_named_where_nobody_can_be_asked(call: Call, tmp_path: Path) -> None:
    done = domain(call, tmp_path, "ask_for_the_rest", "app.example.com")
    assert done.returncode == 2
    assert (
        "there is no e-mail address: add it to the command, such as ops@example.com" in done.stderr
    )
    done = domain(call, tmp_path, "ask_for_the_rest", "ops@example.com")
    assert "there is no domain: add it to the command, such as app.example.com" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["https://a.example.com", "o@e.com"], "https://a.example.com is not a domain"),
        (["localhost", "o@e.com"], "localhost is not a domain"),
        (["192.0.2.1", "o@e.com"], "192.0.2.1 is not a domain"),
        (["a b.example.com", "o@e.com"], "a b.example.com is not a domain"),
        (["*.example.com", "o@e.com"], "*.example.com is not a domain"),
        (["a.example.com", 'o"x@e.com'], 'o"x@e.com is not an e-mail address'),
        (["a.example.com", "o@e"], "o@e is not an e-mail address"),
        (
            ["a.example.com", "o@e.com", "--acme-url", "http://ca/dir"],
            "http://ca/dir is not the address",
        ),
        (
            ["a.example.com", "o@e.com", "--acme-ca", "/nonexistent"],
            "/nonexistent holds no certificate",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_refused(
    call: Call, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    found = problems(domain(call, tmp_path, "check_choice; refuse_problems", *arguments))
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_choice_is_written_as_variables(call: Call, tmp_path: Path) -> None:
    arguments = ["a.example.com", "www.a.example.com", "ops@example.com", "--staging", "--no-probe"]
    done = domain(call, tmp_path, "check_choice; refuse_problems; choice", *arguments)
    assert yaml.safe_load(done.stdout) == {
        "setup_domains": ["a.example.com", "www.a.example.com"],
        "certbot_email": "ops@example.com",
        "certbot_directory_url": "https://acme-staging-v02.api.letsencrypt.org/directory",
        "certbot_probe": False,
        "monitoring_probe_address": "127.0.0.1:443",
    }


def test_a_server_that_is_not_set_up_is_refused(call: Call, tmp_path: Path) -> None:
    found = problems(
        domain(call, tmp_path, "choices=/nonexistent check_server", "a.example.com", "o@e.com")
    )
    assert found == ["toll-app does not run on this server: run setup-production.sh first."]


@pytest.mark.parametrize("unit", ["toll-app", "nginx"])
def test_each_unit_has_to_run(call: Call, tmp_path: Path, unit: str) -> None:
    """The certificate is obtained through the site as it is."""
    ready = f"choices={tmp_path} venv={tmp_path}; touch $venv/.complete"
    # Asked about several, it says whether one is active.
    others = f'for each in "${{@:3}}"; do [[ $each == {unit} ]] || return 0; done; return 3'
    code = f"{ready}; systemctl() {{ {others}; }}; check_server"
    assert problems(domain(call, tmp_path, code, "a.example.com", "o@e.com")) == [
        f"{unit} does not run on this server: run setup-production.sh first."
    ]


def test_no_domain_is_refused(call: Call, tmp_path: Path) -> None:
    """Somebody who is asked may press Enter."""
    code = "read -ra names <<<''; check_choice; refuse_problems"
    assert problems(domain(call, tmp_path, code, "o@e.com")) == [
        "there is no domain: write one such as app.example.com."
    ]


def test_settings_that_would_overrule_the_choice_are_refused(call: Call, tmp_path: Path) -> None:
    """They would be read after it, and the domain would be another than was asked for."""
    ready = f"choices={tmp_path} venv={tmp_path}; touch $venv/.complete;"
    uses = 'applications: {toll-app: {domains: "{{ setup_domains }}"}}\n'
    for text, words in (
        (uses + "setup_domains: [other.example.com]\n", "sets setup_domains"),
        (uses + "certbot_email: o@e.com\n", "sets setup_domains or certbot's variables"),
        ("applications: {toll-app: {domains: [a.b.c]}}\n", "does not use setup_domains"),
    ):
        (tmp_path / "main.yml").write_text(text)
        done = domain(call, tmp_path, f"{ready} check_server", "a.example.com", "o@e.com")
        found = problems(done)
        assert len(found) == 1
        assert found[0].startswith(f"{tmp_path}/main.yml {words}")
    (tmp_path / "main.yml").write_text(uses)
    done = domain(call, tmp_path, f"{ready} check_server", "a.example.com", "o@e.com")
    assert done.returncode == 0, done.stderr


def firewall(
    call: Call, root: Path, status: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Look at what `ufw status verbose` says."""
    code = f"ufw() {{ cat <<'RULES'\n{status}\nRULES\n}}\nlook_at_firewall; refuse_problems"
    return domain(call, root, f'{code}; echo "$note"', *arguments)


ACTIVE = "Status: active\nDefault: deny (incoming), allow (outgoing), disabled (routed)\n\n"
RULE = "{:<26} {:<12}{}"


@pytest.mark.parametrize(
    "status",
    [
        "Status: inactive",
        ACTIVE + RULE.format("80,443/tcp", "ALLOW IN", "Anywhere"),
        ACTIVE + RULE.format("80", "ALLOW IN", "Anywhere"),
        ACTIVE + RULE.format("22,79:90/tcp", "ALLOW IN", "Anywhere"),
        ACTIVE + RULE.format("80/tcp", "LIMIT IN", "Anywhere"),
        ACTIVE
        + RULE.format("80,443/tcp (Nginx Full)", "ALLOW IN", "Anywhere                   # site"),
        ACTIVE + RULE.format("Anywhere", "ALLOW IN", "Anywhere"),
        ACTIVE.replace("deny", "allow"),
    ],
)
def test_an_open_firewall_is_not_spoken_of(call: Call, tmp_path: Path, status: str) -> None:
    done = firewall(call, tmp_path, status)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize(
    "rule",
    [
        "",
        RULE.format("8080/tcp", "ALLOW IN", "Anywhere"),
        RULE.format("22", "LIMIT IN", "Anywhere"),
        RULE.format("192.0.2.1 22/tcp on eth0", "ALLOW IN", "Anywhere"),
        RULE.format("443,8000:9000/tcp", "ALLOW IN", "Anywhere"),
        RULE.format("80/udp", "ALLOW IN", "Anywhere"),
        RULE.format("80/tcp", "DENY IN", "203.0.113.7"),
        RULE.format("80/tcp", "ALLOW OUT", "Anywhere"),
        RULE.format("22/tcp (OpenSSH (v6))", "ALLOW IN", "Anywhere (v6)"),
        RULE.format("443/tcp (Nginx HTTPS)", "ALLOW IN", "Anywhere"),
    ],
)
def test_a_closed_firewall_is_found(call: Call, tmp_path: Path, rule: str) -> None:
    """The server's requests to itself pass it, and the authority's do not."""
    assert problems(firewall(call, tmp_path, ACTIVE + rule)) == [
        "the firewall ufw lets nobody reach port 80: `ufw allow 80,443/tcp`."
    ]
    # Such as one that its provider's firewall keeps apart from the world.
    assert firewall(call, tmp_path, ACTIVE + rule, "--no-probe").returncode == 0


@pytest.mark.parametrize("status", [ACTIVE, ACTIVE.replace("deny", "allow")])
@pytest.mark.parametrize("verb", ["DENY IN", "REJECT IN"])
def test_a_port_that_somebody_has_closed_is_closed(
    call: Call, tmp_path: Path, status: str, verb: str
) -> None:
    """The first rule that fits decides, and then the policy."""
    rules = (
        RULE.format("80/tcp", verb, "203.0.113.7"),
        RULE.format("80,443/tcp", verb, "Anywhere"),
        RULE.format("80/tcp", "ALLOW IN", "Anywhere"),
    )
    (problem,) = problems(firewall(call, tmp_path, status + "\n".join(rules)))
    assert problem.startswith("a rule of the firewall ufw denies everybody port 80")
    done = firewall(call, tmp_path, status + "\n".join([rules[0], rules[2], rules[1]]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize(
    "rule",
    [
        RULE.format("80/tcp on eth0", "ALLOW IN", "Anywhere"),
        RULE.format("192.0.2.1 80/tcp", "ALLOW IN", "Anywhere"),
        RULE.format("80/tcp", "ALLOW IN", "203.0.113.0/24"),
        RULE.format("80/tcp (v6)", "ALLOW IN", "Anywhere (v6)"),
        RULE.format("Anywhere", "ALLOW IN", "203.0.113.7"),
        RULE.format("Anywhere on eth1", "ALLOW IN", "Anywhere"),
        RULE.format("2001:db8:1234:5678:9abc:def0:1234:5678 80/tcp", "ALLOW IN", "Anywhere (v6)"),
        RULE.format("80/tcp (Nginx HTTP (v6))", "ALLOW IN", "Anywhere (v6)"),
        RULE.format("80/tcp (Nginx HTTP) on eth0", "ALLOW IN", "Anywhere"),
    ],
)
def test_a_firewall_that_may_be_open_is_no_obstacle(call: Call, tmp_path: Path, rule: str) -> None:
    done = firewall(call, tmp_path, ACTIVE + rule)
    assert done.returncode == 0, done.stderr
    assert "ufw lets everybody reach port 80 cannot be told" in done.stdout


# --- Removing it ---------------------------------------------------------------------------------


def test_the_guide_removes_of_certbot_what_the_role_does() -> None:
    """What is left runs each hour, and its package cannot be removed by apt."""
    guide = (PROJECT / "docs/PRODUCTION_SETUP.md").read_text().split("\n## Remove it\n")[1]
    role = PROJECT / "roles/certbot"
    known: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((role / part / "main.yml").read_text())
    tasks = {
        key: task
        for task in yaml.safe_load((role / "tasks/uninstall.yml").read_text())
        for key in task
    }
    removed = [
        Path(re.sub(r"{{ (\w+) }}", lambda name: known[name[1]], path))
        for path in tasks["ansible.builtin.file"]["loop"]
    ]
    words = guide.replace("'", " ").split()
    assert [path for path in removed if not {str(path), str(path.parent)} & {*words}] == []
    package = tasks["ansible.builtin.command"]["ansible.builtin.command"]["argv"][-1]
    assert {*known["__certbot_timers"], package} <= {*words}


# --- The steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", sorted((SETUP / "steps").glob("*.yml")), ids=lambda file: file.stem
)
def test_each_step_stands_for_stages_that_there_are(file: Path) -> None:
    """A stage that was renamed would be counted to the step before it, and nobody would notice."""
    stages = [
        f"{path.parent.parent.name}/{path.stem}" for path in PROJECT.glob("roles/*/tasks/*.yml")
    ]
    for step in yaml.safe_load(file.read_text()):
        for pattern in step["stages"]:
            assert fnmatch.filter(stages, pattern), f"{step['words']}: {pattern}"


def test_operators_get_the_versions_that_are_tested() -> None:
    """It is a part of the developers', so that operators and servers run what was tried."""

    def pins(path: Path) -> dict[str, str]:
        lines = (
            line.split(" ")[0].split("==") for line in path.read_text().splitlines() if "==" in line
        )
        return {name: version for name, version in lines}

    operators = pins(PROJECT / "requirements.txt")
    assert operators.items() <= pins(PROJECT / "requirements-dev.txt").items()
    assert {"ansible-core", "uv"} <= operators.keys()
    tools = {"ansible", "ansible-lint", "molecule", "mypy", "playwright", "pytest"}
    assert not tools & operators.keys(), "operators wait for what only developers need"


def test_pip_names_the_python_that_is_needed(tmp_path: Path) -> None:
    """An older pip would try every version of every package instead, for minutes.

    There is no older Python here: the guard is the same line with a limit that this one misses.
    """
    guard = 'python_version < "3.11"'
    venv.create(tmp_path / "venv", with_pip=True)
    for lock in ("requirements.txt", "requirements-dev.txt"):
        text = (PROJECT / lock).read_text()
        assert text.count(guard) == 1, f"{lock}: `make lock` puts the guard in"
        trial = tmp_path / lock
        trial.write_text(text.replace(guard, 'python_version < "99"'))
        result = subprocess.run(
            [tmp_path / "venv/bin/pip", "install", "--no-index", "--requirement", trial],
            capture_output=True,
            text=True,
        )
        assert result.returncode != 0
        assert "Python-3.11-or-newer-is-needed" in result.stderr
