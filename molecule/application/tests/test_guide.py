"""The guide "Bring your own application", typed command by command on a bare host."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any

import pytest
import yaml
from testinfra.host import Host
from workplace import PROJECT, Visitors, Workplace, ask

testinfra_hosts = ["ansible://debian13"]

GUIDE = PROJECT / "docs" / "APPLICATIONS.md"
SHOP = "shop.example.com"
# What somebody does by hand, and what shows that it was mended. `make test` does all at once, and
# `make proof` one after the other; what breaks a seal is listed in tests/unit/host/test_seal.py.
HANDS = [
    ("systemctl stop shop-health.timer", "systemctl is-active shop-health.timer"),
    ("systemctl disable nginx", "systemctl is-enabled nginx"),
    ("chmod 666 /etc/shop/environment", "stat -c %a /etc/shop/environment | grep -v 666"),
    ("rm /etc/nginx/sites/shop.conf", "test -e /etc/nginx/sites/shop.conf"),
]
EVERY_CASE = bool(os.environ.get("EVERY_SYSTEM"))


def blocks(heading: str) -> list[str]:
    """The shell commands of the section whose heading ends with some words, block by block."""
    section = re.split(rf"^## [0-9. ]*{re.escape(heading)}$", GUIDE.read_text(), flags=re.M)[1]
    return re.findall(r"^```sh\n(.*?)^```$", section.split("\n## ")[0], re.M | re.S)


@pytest.fixture(scope="module")
def workplace(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The guide up to the first run, as it is typed."""
    place = Workplace(tmp_path_factory.mktemp("guide"), dict(host.ansible.get_variables()))
    for heading in ("An application", "Its lock file", "An inventory"):
        for block in blocks(heading):
            place.type(block)
    place.write_host()
    (production,) = blocks("Production")
    place.output = place.type(production)
    return place


@pytest.fixture
def web(workplace: Workplace) -> str:
    """The host's address."""
    return str(workplace.host["ansible_host"])


def test_the_shortest_description_is_enough(workplace: Workplace, web: str) -> None:
    """A newcomer judges a project by what the first page brings."""
    assert ask(web, SHOP) == (200, "Hello from the shop\n")
    output = str(workplace.output)
    assert f"shop: https://{SHOP}/ (release " in output
    described = yaml.safe_load(re.findall(r"<<'YAML'\n(.*?)YAML", GUIDE.read_text(), re.S)[0])
    assert set(described["applications"]["shop"]) == {"source", "domains"}


def test_it_runs_as_a_user_of_its_own_behind_its_own_socket(host: Host, as_root: Any) -> None:
    """No port is opened that nobody asked for, and nobody else opens the socket."""
    assert host.user("shop").shell.endswith("nologin")
    assert "root www-data 660" in as_root("stat -c '%U %G %a' /run/gunicorn/shop.sock")
    assert "gunicorn" not in as_root("ss -Hltnp")
    assert as_root("shop").startswith("shop is up.")
    assert json.loads(as_root("shop status --json"))["drift"] == []


def test_the_next_release_and_the_way_back_lose_nobody(workplace: Workplace, web: str) -> None:
    """As the guide has it, with visitors on the site."""
    (commands,) = blocks("The next release")
    with Visitors(web, SHOP) as visitors:
        output = workplace.type(commands)
    assert visitors.bad == []
    assert visitors.asked > 100
    assert "The release is healthy." in output
    assert re.search(r"Rolled back from \w+ to \w+\.", output)
    assert ask(web, SHOP) == (200, "Hello from the shop\n")


def test_a_release_that_does_not_answer_is_not_let_in(workplace: Workplace, web: str) -> None:
    deploy = ".venv/bin/ansible-playbook -i inventory/production playbooks/deploy.yml"
    application = workplace.project.parent / "shop" / "app.py"
    good = application.read_text()
    application.write_text("raise RuntimeError('broken on purpose')\n")
    try:
        with Visitors(web, SHOP) as visitors:
            output = workplace.type(deploy, status=2)
        assert visitors.bad == []
        assert "was judged bad in stage standby" in output
        assert "broken on purpose" in output
    finally:
        application.write_text(good)


def test_a_second_application_moves_in_beside_it(
    host: Host, workplace: Workplace, web: str, as_root: Any
) -> None:
    """Own user, units and releases; a run of site.yml for it does not touch the first."""
    blog = workplace.project.parent / "blog"
    shutil.copytree(workplace.project.parent / "shop", blog)
    (blog / "blog.py").write_text(
        "def wsgi(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [environ['HTTP_HOST'].encode()]\n"
    )
    (blog / "app.py").unlink()
    workplace.describe(
        blog={"source": "../blog", "wsgi": "blog:wsgi", "domains": ["blog.example.com"]},
        # A deploy of the working tree is none of this test.
        shop={"web": {"workers": 2}},
    )
    site = ".venv/bin/ansible-playbook -i inventory/production site.yml"
    with Visitors(web, SHOP) as visitors:
        workplace.type(site)
    assert visitors.bad == []
    assert ask(web, "blog.example.com") == (200, "blog.example.com")
    assert ask(web, SHOP)[0] == 200
    before = as_root("systemctl show -P InvocationID shop.service")
    moment = workplace.moment(as_root)
    output = workplace.type(f"{site} -e application_seal_hours=0")
    # So that no feature adds a trip unseen: some are of the host, some of each application.
    assert workplace.trips(as_root, moment) == {
        "wsgi.host.probe": 1,
        "wsgi.host.deploy_lock": 2 * 2,
        "wsgi.host.release": 1 + 2,
        "wsgi.host.certificate": 1,
        "wsgi.host.config_tree": 3 + 2 * 3,
        "wsgi.host.program": 2,
        "wsgi.host.judge": 2,
    }
    assert re.search(r"changed=0 ", output), output[-600:]
    assert as_root("systemctl show -P InvocationID shop.service") == before
    assert host.user("blog").uid != host.user("shop").uid
    # None of them can look into the other.
    for one, other in (("blog", "shop"), ("shop", "blog")):
        assert host.run(f"sudo -u {one} ls /var/lib/{other}").rc != 0
        assert host.run(f"sudo {one} exec python -c 'open(\"/etc/{other}/environment\")'").rc != 0


def test_a_run_that_has_nothing_to_do_looks_once(workplace: Workplace, as_root: Any) -> None:
    """One trip and one message. What somebody has done by hand meanwhile is seen and mended."""
    site = ".venv/bin/ansible-playbook -i inventory/production site.yml"
    nothing = re.compile(r"web1 +: ok=2 +changed=0 +unreachable=0 +failed=0 +skipped=0 ")
    # The shop was rolled back: as long as that holds, each run says that it is not deployed.
    deploy = ".venv/bin/ansible-playbook -i inventory/production playbooks/deploy.yml"
    workplace.type(f"{deploy} -e application=shop")
    workplace.type(site)
    output = workplace.type(site)
    assert nothing.search(output), output[-600:]
    assert "Nothing has changed since the last whole run, " in output
    assert "shop: https://shop.example.com/ (release " in output
    for hands in [HANDS] if not EVERY_CASE else [[each] for each in HANDS]:
        for done, _ in hands:
            as_root(done)
        output = workplace.type(site)
        assert not re.search(r"changed=0 ", output), f"{hands}\n{output[-600:]}"
        for _, mended in hands:
            as_root(mended)
    assert nothing.search(workplace.type(site))
    # What was given counts as well as what is there.
    application = workplace.project.parent / "shop" / "app.py"
    good = application.read_text()
    application.write_text(f"{good}# changed\n")
    try:
        assert not nothing.search(workplace.type(f"{site} --check"))
    finally:
        application.write_text(good)
    assert nothing.search(workplace.type(site))


def test_where_there_are_several_one_has_to_be_named(workplace: Workplace) -> None:
    """A deploy of the wrong application would be found out by its users."""
    play = ".venv/bin/ansible-playbook -i inventory/production playbooks/deploy.yml"
    output = workplace.type(play, status=2)
    assert "There are blog and shop" in output or "There are shop and blog" in output
    assert "-e application=NAME" in output
    output = workplace.type(f"{play} -e application=shp", status=2)
    assert "There is no application shp: use one of blog, shop" in output


def test_what_clashes_is_refused_before_anything(workplace: Workplace, as_root: Any) -> None:
    before = as_root("find /etc /opt -newermt @0 -printf '%p %T@\\n' | sort | sha256sum")
    site = ".venv/bin/ansible-playbook -i inventory/production site.yml"
    workplace.describe(
        blog={
            "domains": [SHOP],
            "web": {"bind": ["127.0.0.1:5000"]},
            "backup": {"directory": "/var/backups/shop"},
        },
        shop={"web": {"bind": ["127.0.0.1:5000"]}},
    )
    output = " ".join(workplace.type(site, status=2).split())
    assert f"applications.blog.domains has {SHOP}, which another application of this host" in output
    assert "applications.blog.web.bind has port 5000, which another application" in output
    assert "applications.blog.backup.directory is where another application" in output
    workplace.describe(blog={"domain": ["x"], "domains": ["blog.example.com"]})
    output = " ".join(workplace.type(site, status=2).split())
    assert "applications.blog.domain is not a key of applications.blog; did you mean" in output
    after = as_root("find /etc /opt -newermt @0 -printf '%p %T@\\n' | sort | sha256sum")
    assert after == before


def test_one_goes_and_the_other_stays(host: Host, workplace: Workplace, web: str) -> None:
    """Its site, its units, its user and its data, and nothing of the other's."""
    workplace.describe(blog=None)
    workplace.describe(
        blog={"source": "../blog", "wsgi": "blog:wsgi", "domains": ["blog.example.com"]},
        shop={"web": {"workers": 2}},
    )
    served = ask(web, SHOP)
    assert served[0] == 200
    with Visitors(web, SHOP) as visitors:
        workplace.type(
            ".venv/bin/ansible-playbook -i inventory/production playbooks/remove.yml "
            "-e application=blog -e application_remove=everything -e application_remove_data=yes"
        )
    assert visitors.bad == []
    assert not host.user("blog").exists
    left = host.run("sudo find / -xdev -name '*blog*' -not -path '/proc/*' -not -path '/sys/*'")
    assert [path for path in left.stdout.split() if "nginx" in path or "systemd" in path] == []
    kept = "/var/lib/gunicorn-handover/blog"
    for path in ("/opt/blog", "/etc/blog", "/var/lib/blog", "/usr/local/sbin/blog", kept):
        assert not host.file(path).exists, path
    assert ask(web, SHOP) == served
    assert host.file("/usr/local/lib/apphost/current").exists
