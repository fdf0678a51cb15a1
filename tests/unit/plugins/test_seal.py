"""`wsgi.host.seal`: what a run was given is told from what another was given."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible.utils.context_objects import CLIArgs
from ansible_collections.wsgi.host.plugins.action import seal
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import source_content
from conftest import PROJECT, action_of, trusted

ROLES = PROJECT / "roles"

PYLOCK = """lock-version = "1.0"
created-by = "somebody"

[[packages]]
name = "flask"
version = "3.0.0"
wheels = [{url = "https://example.com/flask-3.0.0-py3-none-any.whl", hashes = {sha256 = "00"}}]
"""
QUESTION = {"connect": "127.0.0.1:443", "name": "a", "path": "/", "status": 200, "json": {}}


class Variables(dict[str, Any]):
    """Ansible's hostvars, as far as the action reads them."""

    def raw_get(self, name: str) -> Any:
        return self[name]


class Project:
    """A control node's project with one host, whose seal is kept here in place of on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.arguments: dict[str, Any] = {"inventory": [str(folder / "inventory")]}
        # Beside the project, as the guide has it.
        self.variables: dict[str, Any] = {
            "application_journal_size": "1G",
            "applications": {"shop": {"source": "../shop", "domains": ["shop.example.com"]}},
        }
        self.seal: dict[str, Any] = {}
        self.broken = self.unfit = ""
        self.asked: list[dict[str, Any]] = []
        self.check_mode = False
        self.own_runs = True
        self.groups = {"all": ["web1"], "web": ["web1"]}
        self.others: dict[str, Any] = {}
        # The host that is looked at.
        self.name = "web1"
        self.put("roles/application/tasks/main.yml", "[]\n")
        self.put("inventory/hosts.yml", "web:\n")
        self.put("inventory/group_vars/web/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
        self.put("ansible.cfg", "")
        self.put("playbooks/site.yml", "[]\n")
        self.put("../shop/app.py", "app = 1\n")
        self.put("../shop/requirements.txt", "flask==3.0.0 --hash=sha256:00\n")
        monkeypatch.setattr(seal, "COLLECTION", folder / "collection")
        self.put("collection/plugins/action/one.py", "")
        self._monkeypatch = monkeypatch

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def made_of(self) -> dict[str, Any]:
        """What the role says of the application at the end."""
        content = source_content(str(self.folder.parent / "shop"), None)
        told = {"name": "shop", "release": "new", "question": QUESTION, "content": content}
        return {**told, "locked": True}

    def act(self, **arguments: Any) -> dict[str, Any]:
        self._monkeypatch.setattr(context, "CLIARGS", CLIArgs(self.arguments))
        if self.own_runs:
            # What the processes of one run share is not there in the next one.
            run = tempfile.mkdtemp(dir=self.folder.parent)
            self._monkeypatch.setattr(seal.C, "DEFAULT_LOCAL_TMP", run)
        told = trusted(self.variables)
        task_vars = {
            **told,
            "hostvars": Variables({self.name: told, **trusted(self.others)}),
            "groups": self.groups,
            "inventory_hostname": self.name,
            "playbook_dir": str(self.folder / "playbooks"),
            "role_path": str(self.folder / "roles/application"),
        }
        action = action_of(
            seal.ActionModule, arguments, told, DataLoader(), check_mode=self.check_mode
        )

        def module(**call: Any) -> dict[str, Any]:
            wanted = call["module_args"]["seal"]
            self.asked.append(wanted)
            host = {"distribution": "debian", "distribution_like": []}
            if "record" in wanted:
                self.seal = wanted["record"]
                return {"ansible_facts": {"wsgi_host": host}, "seal": {"broken": self.unfit}}
            broken = self.broken or ("" if self.seal else "there is none")
            if self.seal.get("inputs", wanted["inputs"]) != wanted["inputs"]:
                broken = "what was given has changed"
            return {
                "ansible_facts": {"wsgi_host": host},
                "seal": {"at": 1_800_000_000, **self.seal, "broken": broken},
            }

        action._execute_module = module
        result: dict[str, Any] = action.run(task_vars=task_vars)
        return result

    def whole_run(self, **more: Any) -> dict[str, Any]:
        """The first look and the last."""
        inputs = self.act()["inputs"]
        serves = self.name in self.groups["web"]
        made_of, said = ([self.made_of() | more], ["shop: served"]) if serves else ([], [])
        return self.act(state="set", inputs=inputs, applications=made_of, notices=said)

    def helps(self, name: str, group: str) -> None:
        """Look at a host that serves nothing, beside two that do and others of a fleet."""
        shop: dict[str, Any] = {"source": "../shop", "domains": ["shop.example.com"]}
        shop["data"] = {"postgresql": True}
        common = {"applications": {"shop": shop}, "application_database_secret": "s" * 64}
        listed = {
            "balancers": ["lb1"],
            "web": ["web1", "web2"],
            "databases": ["db1", "db2"],
            "database_voters": ["db1", "db2", "vote1"],
            "monitoring": ["watch1"],
        }
        self.groups = {"all": sorted({each for names in listed.values() for each in names})}
        self.groups |= listed
        assert name in self.groups[group]
        told: dict[str, dict[str, Any]] = {
            each: {**common, "ansible_host": f"192.0.2.{number}"}
            for number, each in enumerate(self.groups["all"], 1)
        }
        for each in (*listed["balancers"], *listed["web"]):
            told[each] |= {"monitoring_enabled": True, "monitoring_server": "watch1"}
        self.name, self.variables = name, told.pop(name)
        self.others = told


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path / "one/project", monkeypatch)


def test_the_second_run_has_nothing_to_do(project: Project) -> None:
    first = project.act()
    assert (first["kept"], first["why"]) == (False, "there is none")
    project.whole_run()
    second = project.act()
    assert (second["kept"], second["why"], second["notices"]) == (True, "", ["shop: served"])
    assert second["at"] == "2027-01-15 08:00 UTC"
    assert second["ansible_facts"]["wsgi_host"]["family"] == "Debian"
    # One trip for the first look, which roles need anyway, and one to make the seal.
    assert [list(each) for each in project.asked] == [
        *([["hours", "inputs"]] * 2),
        *(["record"], ["hours", "inputs"]),
    ]


def test_what_is_the_same_for_all_hosts_is_read_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fleet each host has a process of its own, and there are as many as a fleet has hosts."""
    read: list[str] = []
    content = seal._content

    def counted(path: Path) -> str:
        read.append(path.name)
        return content(path)

    monkeypatch.setattr(seal, "_content", counted)
    inputs = project.act()["inputs"]
    first = sorted(read)
    assert {"hosts.yml", "one.py", "main.yml", "vault.yml"} < set(first)
    project.own_runs = False
    read.clear()
    assert project.act()["inputs"] == inputs
    # The playbooks themselves.
    assert read == ["site.yml"]
    project.own_runs = True
    read.clear()
    project.act()
    assert sorted(read) == first


def test_another_clone_of_the_project_knows_it_too(project: Project, tmp_path: Path) -> None:
    project.whole_run()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    project.folder = tmp_path / "two/project"
    project.arguments = {"inventory": [str(tmp_path / "two/project/inventory")]}
    assert project.act()["kept"]


CHANGES = {
    "a variable": lambda project: project.variables.update(application_journal_size="2G"),
    "a new variable": lambda project: project.variables.update(nginx_http_port=8080),
    "a role": lambda project: project.put("roles/application/tasks/main.yml", "# new\n"),
    "a new role": lambda project: project.put("roles/other/tasks/main.yml", ""),
    "a plugin": lambda project: project.put("collection/plugins/action/one.py", "#"),
    "a playbook": lambda project: project.put("playbooks/site.yml", "# new\n"),
    "the inventory": lambda project: project.put("inventory/hosts.yml", "web: # new\n"),
    "a vault": lambda project: project.put(
        "inventory/group_vars/web/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6163\n"
    ),
    "one more application": lambda project: project.variables["applications"].update(b={}),
    "a host": lambda project: project.groups.update(all=["web1", "web2"], web=["web1", "web2"]),
    "an address": lambda project: project.variables.update(ansible_host="192.0.2.7"),
    "the source": lambda project: project.put("../shop/app.py", "app = 2\n"),
    "a new file": lambda project: project.put("../shop/new.py", ""),
    "the lock": lambda project: project.put("../shop/requirements.txt", "flask==3.0.1\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_run_is_given_counts(project: Project, change: str) -> None:
    project.whole_run()
    assert project.act()["kept"]
    CHANGES[change](project)
    result = project.act()
    assert not result["kept"]
    assert "has changed" in result["why"]


def test_where_the_database_is_and_its_secret_count(project: Project) -> None:
    """They are of another host, and the application's URL is made of them."""
    db1 = {"ansible_host": "192.0.2.31", "application_database_secret": "s" * 64}
    project.groups["databases"] = ["db1"]
    project.others["db1"] = db1
    project.variables["ansible_host"] = "192.0.2.11"
    project.variables["applications"]["shop"]["data"] = {"postgresql": True}
    project.whole_run()
    assert project.act()["kept"] is True
    project.others["db1"] = {**db1, "ansible_host": "192.0.2.32"}
    assert project.act()["kept"] is False
    project.others["db1"] = {**db1, "application_database_secret": "t" * 64}
    assert project.act()["kept"] is False


HELPERS = {
    "lb1": "balancers",
    "db1": "databases",
    "vote1": "database_voters",
    "watch1": "monitoring",
}


@pytest.mark.parametrize(("name", "group"), HELPERS.items())
def test_a_host_that_serves_nothing_is_looked_at_as_the_others(
    project: Project, name: str, group: str
) -> None:
    """One trip for each look, though the variables of all hosts have applications."""
    project.helps(name, group)
    assert project.whole_run()["msg"] == ""
    assert project.act()["kept"] is True
    assert [list(each) for each in project.asked] == [
        ["hours", "inputs"],
        ["record"],
        ["hours", "inputs"],
    ]
    # Nor is the secret in what the host keeps.
    assert "s" * 64 not in str(project.asked)
    assert project.seal["sources"] == {}


def later(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two years on, the next certificates are due."""
    number = seal.authority.number_of
    monkeypatch.setattr(
        seal.authority, "number_of", lambda now: number(now + 2 * seal.authority.THIRD)
    )


def shop(project: Project, host: str) -> dict[str, Any]:
    found: dict[str, Any] = project.others[host]["applications"]["shop"]
    return found


# By whom they concern.
CHANGES_OF_OTHERS: dict[str, tuple[str, Callable[[Project, pytest.MonkeyPatch], Any]]] = {
    "a host that serves has another address": (
        "lb1 db1 watch1",
        lambda project, _: project.others["web2"].update(ansible_host="192.0.2.99"),
    ),
    "a host that serves is new": (
        "lb1 db1 vote1 watch1",
        lambda project, _: (
            project.groups.update(web=["web1", "web2", "web3"]),
            project.others.update(web3=project.others["web2"]),
        ),
    ),
    "a host that serves is gone": (
        "lb1 db1 vote1 watch1",
        lambda project, _: project.groups.update(web=["web1"]),
    ),
    "clients ask for another name": (
        "lb1 watch1",
        lambda project, _: [
            shop(project, host).update(domains=["new.example.com"]) for host in ("web1", "web2")
        ],
    ),
    "the application is asked for its health in another way": (
        "lb1 watch1",
        lambda project, _: [
            shop(project, host).update(health={"path": "/up"}) for host in ("web1", "web2")
        ],
    ),
    "a host has an authority that nobody trusts": (
        "lb1 watch1",
        lambda project, _: project.others["web1"].update(certbot_obtain=False),
    ),
    "nginx expects balancers elsewhere": (
        "lb1",
        lambda project, _: [
            project.others[host].update(nginx_proxy_protocol_https_port=9443)
            for host in ("web1", "web2")
        ],
    ),
    "an application has a database elsewhere": (
        "db1",
        lambda project, _: [
            shop(project, host).update(data={"database_url": "postgresql://x"})
            for host in ("web1", "web2")
        ],
    ),
    "another database has another address": (
        "db1 vote1",
        lambda project, _: project.others["db2"].update(ansible_host="192.0.2.98"),
    ),
    "another host votes": (
        "db1 vote1",
        lambda project, _: project.groups.update(database_voters=["db1", "db2", "lb1"]),
    ),
    "the secret is another": (
        "db1 vote1 lb1",
        lambda project, _: [
            each.update(application_database_secret="t" * 64)
            for each in (project.variables, *project.others.values())
        ],
    ),
    "the next certificates are due": ("db1 vote1", later),
    "a host is watched by nobody any more": (
        "watch1",
        lambda project, _: project.others["web2"].update(monitoring_enabled=False),
    ),
    "the way in of a balancer is another": (
        "watch1",
        lambda project, _: project.others["lb1"].update(haproxy_https_port=8443),
    ),
}


@pytest.mark.parametrize(
    ("change", "name"),
    [(change, name) for change, (names, _) in CHANGES_OF_OTHERS.items() for name in names.split()],
)
def test_what_a_host_is_made_of_counts_wherever_it_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: str, name: str
) -> None:
    """It is in variables of other hosts, which may be of no file: an inventory may be a program."""
    project.helps(name, HELPERS[name])
    project.whole_run()
    assert project.act()["kept"] is True
    project.others = copy.deepcopy(project.others)
    CHANGES_OF_OTHERS[change][1](project, monkeypatch)
    assert project.act()["why"] == "what was given has changed"


def test_variables_that_cannot_be_right_are_left_to_the_checks(project: Project) -> None:
    """They say which variable it is, and the remedy; a look only says that it cannot tell."""
    project.helps("lb1", "balancers")
    project.others["web1"]["applications"] = {"shop": {"domains": 5, "health": 7}}
    project.variables |= {"firewall_enabled": True, "firewall_open": "none"}
    result = project.act()
    assert (result["kept"], result["inputs"]) == (False, "")
    assert not result.get("failed")
    assert "its input cannot be determined" in result["why"]


def test_whom_the_firewall_lets_in_counts(project: Project) -> None:
    """It follows from the variables of other hosts, and from what roles say."""
    project.put(
        "roles/firewall/defaults/main.yml", (ROLES / "firewall/defaults/main.yml").read_text()
    )
    opens = "groups: [web]\nopenings:\n  - {ports: [80], sources: [balancers], reason: sites}\n"
    project.put("roles/nginx/meta/openings.yml", opens)
    project.groups["balancers"] = []
    project.others["watch1"] = {"ansible_host": "192.0.2.31"}
    project.groups["watchers"] = ["watch1"]
    more = {"port": 9100, "sources": ["watchers"], "reason": "metrics"}
    project.variables |= {"firewall_enabled": True, "firewall_open": [more]}
    project.whole_run()
    assert project.act()["kept"] is True
    project.others["watch1"] = {"ansible_host": "192.0.2.32"}
    assert project.act()["kept"] is False


def test_a_file_that_a_variable_names_counts(project: Project) -> None:
    project.put("ca.pem", "one")
    project.variables["certbot_ca_file"] = str(project.folder / "ca.pem")
    project.whole_run()
    assert project.act()["kept"]
    project.put("ca.pem", "two")
    assert not project.act()["kept"]


def test_what_a_lookup_gives_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "one")
    project.variables["size"] = "{{ lookup('ansible.builtin.env', 'SIZE') }}"
    project.whole_run()
    assert project.act()["kept"]
    monkeypatch.setenv("SIZE", "two")
    assert not project.act()["kept"]


@pytest.mark.parametrize(
    "written",
    [
        "{{ hostvars['proxy1'].ansible_host }}",
        "{{ groups['proxies'] | map('extract', hostvars, 'ansible_host') | list }}",
        "{{ hostvars | dict2items | map(attribute='value.ansible_host') | list }}",
    ],
)
def test_what_another_host_has_counts_however_it_is_read(project: Project, written: str) -> None:
    """Of a host that is in no group of the fleet, and comes from a program, say."""
    project.groups["proxies"] = ["proxy1"]
    project.others["proxy1"] = {"ansible_host": "192.0.2.50"}
    project.variables |= {"ansible_host": "192.0.2.1", "nginx_trusted_proxies": written}
    project.variables |= {"hostvars": project.others, "groups": project.groups}
    project.whole_run()
    assert project.act()["kept"]
    project.others["proxy1"]["ansible_host"] = "192.0.2.51"
    assert not project.act()["kept"]


def test_a_filter_that_reads_the_environment_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SIZE", "one")
    project.variables["size"] = "{{ '$SHOP_SIZE' | expandvars }}"
    project.whole_run()
    assert project.act()["kept"]
    monkeypatch.setenv("SHOP_SIZE", "two")
    assert not project.act()["kept"]


def test_what_ansible_makes_anew_does_not_count(project: Project) -> None:
    project.whole_run()
    project.variables |= {"ansible_facts": {"x": 1}, "__private": 2, "omit": object()}
    assert project.act()["kept"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tags": ["nginx"]}, "for some tags"),
        ({"skip_tags": ["nginx"]}, "for some tags"),
        ({"subset": "web1"}, "for some hosts"),
        ({"start_at_task": "x"}, "step by step"),
    ],
)
def test_a_part_neither_believes_it_nor_makes_one(
    project: Project, arguments: dict[str, Any], words: str
) -> None:
    project.groups = {"all": ["web1", "web2"], "web": ["web1", "web2"]}
    project.variables["ansible_play_hosts_all"] = ["web1"]
    project.whole_run()
    project.arguments |= arguments
    project.asked.clear()
    result = project.act()
    assert (result["kept"], result["inputs"]) == (False, "")
    assert words in result["why"]
    project.whole_run()
    assert project.asked == []


def test_a_limit_that_leaves_nobody_out_is_none(project: Project) -> None:
    """ansible-pull names its own host, in whichever way, though there is no other."""
    project.variables["ansible_play_hosts_all"] = ["web1"]
    project.arguments["subset"] = "localhost,web1,127.0.0.1"
    project.whole_run()
    assert project.act()["kept"]


def test_no_hours_means_never(project: Project) -> None:
    project.whole_run()
    project.asked.clear()
    assert project.act(hours=0)["why"] == "it is to look at everything"
    assert project.asked == []


def test_what_the_host_says_goes_first(project: Project) -> None:
    project.whole_run()
    project.broken = "unit nginx.service is not as it was"
    assert project.act()["why"] == "unit nginx.service is not as it was"


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "shop has hooks or build steps"), ("another", "the source of shop has changed")],
)
def test_what_cannot_be_told_again_is_not_sealed(
    project: Project, content: str, words: str
) -> None:
    """Hooks want to run each time; or the files have changed since the build."""
    assert words in project.whole_run(content=content)["msg"]
    assert project.seal == {}


@pytest.mark.parametrize("member", [{"repository": "ssh://git/x"}, {"build": [["make"]]}])
def test_what_is_built_anew_each_time_is_not_sealed(
    project: Project, member: dict[str, Any]
) -> None:
    project.variables["applications"]["shop"]["source"] = {"directory": "../shop", **member}
    assert project.whole_run()["msg"] == "shop is built again each time"


def test_a_host_that_is_not_as_wanted_is_told(project: Project) -> None:
    project.unfit = "shop-worker-mail@a-1.service is activating"
    assert project.whole_run()["msg"] == project.unfit


def test_a_lock_of_another_tool_is_told_again(project: Project) -> None:
    """Its hash is that of what it is exported to."""
    (project.folder / "../shop/requirements.txt").unlink()
    project.put("../shop/pylock.toml", PYLOCK)
    project.whole_run()
    assert project.act()["kept"]


def test_an_application_that_a_role_describes(project: Project) -> None:
    source = "{{ (role_path ~ '/../../../shop') | realpath }}"
    told = f'shop_application:\n  source: "{source}"\n'
    project.put("roles/shop/vars/main.yml", told)
    project.variables["applications"] = {"shop": {"role": "shop"}}
    project.whole_run()
    assert project.act()["kept"]
    project.put("../shop/app.py", "app = 2\n")
    assert project.act()["why"] == "the source of shop has changed"


def described(project: Project, told: str, file: str = "vars/main.yml", role: str = "shop") -> None:
    """Have a role describe the application."""
    project.put(f"roles/shop/{file}", told)
    project.put("roles/shop/tasks/describe.yml", "[]\n")
    project.variables["applications"] = {"shop": {"role": role}}


@pytest.mark.parametrize("file", ["vars/main.yml", "vars/main.yaml", "vars/main/a.yml"])
def test_a_role_may_say_it_by_variables_of_its_own(project: Project, file: str) -> None:
    """Ansible knows them once it has included the role, which comes after the first look."""
    project.put("roles/shop/defaults/main.yml", "shop_directory: ../nowhere\nshop_from: ../shop\n")
    described(project, 'shop_application: {source: "{{ shop_directory }}"}\n', file)
    project.variables["shop_directory"] = "{{ shop_from }}"
    project.whole_run()
    assert project.act()["kept"]


def test_a_role_may_say_it_in_its_defaults_alone(project: Project) -> None:
    described(project, "shop_application: {source: ../shop}\n", "defaults/main.yml")
    project.whole_run()
    assert project.act()["kept"]


def test_a_role_of_a_collection_may_say_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "shop_application: {source: ../shop, web: {workers: %d}}\n"
    described(project, "", role="my.apps.shop")
    project.put("elsewhere/shop/vars/main.yml", told % 2)
    monkeypatch.setattr(
        "ansible_collections.wsgi.host.plugins.plugin_utils.roles._get_collection_role_path",
        lambda name: (name, str(project.folder / "elsewhere/shop"), "my.apps"),
    )
    project.whole_run()
    assert project.act()["kept"]
    project.put("elsewhere/shop/vars/main.yml", told % 3)
    assert not project.act()["kept"]


def test_a_role_that_is_gone_is_a_reason_and_no_error(project: Project) -> None:
    described(project, "shop_application: {source: ../shop}\n")
    project.whole_run()
    shutil.rmtree(project.folder / "roles/shop")
    assert "there is no role shop" in project.act()["why"]


def test_a_role_beside_the_playbook_counts(project: Project) -> None:
    place, told = "playbooks/roles/shop/vars/main.yml", "shop_application: {source: ../shop, x: %d}"
    described(project, told % 1)
    project.put(place, told % 1)
    project.whole_run()
    assert project.act()["kept"]
    project.put(place, told % 2)
    assert not project.act()["kept"]


@pytest.mark.parametrize("what", ["env", "file", "name"])
def test_what_a_role_that_describes_looks_up_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    key = str(project.folder / "key")
    written = {
        "env": "{{ lookup('ansible.builtin.env', 'SHOP_REGION') }}",
        "file": f"{{{{ lookup('ansible.builtin.file', '{key}') }}}}",
        "name": key,
    }
    monkeypatch.setenv("SHOP_REGION", "one")
    project.put("key", "one")
    described(project, f'shop_key: "{written[what]}"\nshop_application: {{source: ../shop}}\n')
    project.whole_run()
    assert project.act()["kept"]
    monkeypatch.setenv("SHOP_REGION", "two")
    project.put("key", "two")
    assert not project.act()["kept"]


def test_check_mode_seals_nothing(project: Project) -> None:
    project.check_mode = True
    project.whole_run()
    assert project.seal == {}


def test_a_host_does_not_say_where_to_look(project: Project) -> None:
    """It would have the control node read whatever there is."""
    project.whole_run()
    assert list(project.seal["sources"]) == ["shop"]
    assert str(project.folder.parent) not in str(project.seal)
    project.seal["sources"]["/etc"] = "x"
    assert project.act()["why"] == "other applications are described"


def test_facts_of_an_earlier_play_do_not_count(project: Project) -> None:
    project.whole_run()
    project.variables["wsgi_host"] = {"mounts": {"/": 1}}
    project.variables["ansible_facts"] = {"found": 1}
    project.variables["found"] = 1
    assert project.act()["kept"]


@pytest.mark.parametrize("name", ["lb1", "db1", "vote1"])
def test_what_was_seen_holds_while_there_are_only_checks(project: Project, name: str) -> None:
    """Otherwise the checks of a balancer or a database would cost a second look at it."""
    groups = {"lb1": "balancers", "db1": "databases", "vote1": "database_voters"}
    project.helps(name, groups[name])
    first = project.act()
    seen = {key: first[key] for key in ("kept", "why", "inputs")}
    facts = first["ansible_facts"]
    project.variables["ansible_facts"] = facts
    assert project.act(seen=seen, unchanged=True)["ansible_facts"] == facts
    # It has changed since, or a fact cache has what an earlier run saw.
    assert project.act(seen=seen)["ansible_facts"] == {}
    project.variables["ansible_facts"] = {"wsgi_host": {**facts["wsgi_host"], "play": "other-1"}}
    assert project.act(seen=seen, unchanged=True)["ansible_facts"] == {}
    project.variables["ansible_facts"] = {}
    assert project.act(seen=seen, unchanged=True)["ansible_facts"] == {}
    assert len(project.asked) == 1


@pytest.mark.parametrize("name", ["lb1", "db1", "vote1", "watch1"])
def test_who_serves_nothing_need_not_know_what_applications_are_made_of(
    project: Project, name: str
) -> None:
    """Variables of all hosts may have them, and refer to what only the group web knows."""
    groups = {"lb1": "balancers", "db1": "databases", "vote1": "database_voters"}
    project.helps(name, groups.get(name, "monitoring"))
    shop = project.variables["applications"]["shop"]
    told = {"applications": {"shop": {**shop, "environment": {"KEY": "{{ only_of_web }}"}}}}
    project.variables |= told
    for each in project.others.values():
        each.update(told)
    for each in ("web1", "web2"):
        project.others[each]["only_of_web"] = "key"
    assert project.act()["inputs"]


def test_what_an_earlier_run_saw_is_looked_at_again(project: Project) -> None:
    """Without a first look, as with --limit or --tags, a fact cache may still have it."""
    host = project.act()["ansible_facts"]["wsgi_host"]
    seen = {"kept": False, "why": "it is run for some hosts", "inputs": ""}
    project.variables["ansible_facts"] = {"wsgi_host": host}
    assert project.act(seen=seen)["ansible_facts"] == {"wsgi_host": host}
    project.variables["ansible_facts"] = {"wsgi_host": {**host, "play": "other-1"}}
    assert project.act(seen=seen)["ansible_facts"] == {}


def test_a_variable_that_is_made_of_others_names_a_file(project: Project) -> None:
    project.put("ca.pem", "one")
    project.variables |= {"place": str(project.folder), "certbot_ca_file": "{{ place }}/ca.pem"}
    project.whole_run()
    project.put("ca.pem", "two")
    assert not project.act()["kept"]
