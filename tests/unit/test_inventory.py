"""The inventory that operators copy, and what the guide says about its secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

BIN = Path(sys.executable).parent
GUIDE = PROJECT / "docs" / "MAINTENANCE.md"
PASSWORD = "not-a-secret-of-the-vault"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A copy of inventory/example with a secret in its vault, encrypted as the guide says."""
    copy = tmp_path / "production"
    shutil.copytree(PROJECT / "inventory" / "example", copy)
    vault = copy / "group_vars" / "web" / "vault.yml"
    vault.write_text(f"---\nvault_toll_secret_key: {'s' * 40}\n")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    assert "ansible-vault encrypt inventory/production/group_vars/web/vault.yml" in (
        GUIDE.read_text()
    )
    done = run("ansible-vault", "encrypt", str(vault), f"--vault-password-file={password}")
    assert done.returncode == 0, done.stderr
    return copy


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: x for key, x in os.environ.items() if not key.startswith("ANSIBLE_VAULT")}
    return subprocess.run(
        [str(BIN / program), *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=PROJECT,
        env=environment,
    )


def test_the_vault_is_read_with_its_password(inventory: Path) -> None:
    told = run(
        "ansible-inventory",
        f"--inventory={inventory}",
        "--list",
        f"--vault-password-file={inventory.parent / 'password'}",
    )
    assert told.returncode == 0, told.stderr
    listed = json.loads(told.stdout)
    secrets = [
        listed["_meta"]["hostvars"][name]["vault_toll_secret_key"]
        for name in listed["web"]["hosts"]
    ]
    assert secrets
    assert set(secrets) == {"s" * 40}


def test_the_second_application_is_one_comment_away(inventory: Path) -> None:
    """Somebody who takes the signs of the comment off has two applications on each host."""
    main = inventory / "group_vars" / "web" / "main.yml"
    before, after = main.read_text().split("  # shop:\n")
    entry, rest = after.split("\n\n", 1)
    main.write_text(f"{before}  shop:\n{entry.replace('  #   ', '    ')}\n\n{rest}")
    told = run(
        "ansible-inventory",
        f"--inventory={inventory}",
        "--list",
        f"--vault-password-file={inventory.parent / 'password'}",
    )
    assert told.returncode == 0, told.stderr
    for host in json.loads(told.stdout)["_meta"]["hostvars"].values():
        shop = host["applications"]["shop"]
        assert set(host["applications"]) == {"toll-app", "shop"}
        assert shop == {"source": "../shop", "domains": ["shop.example.com"]}


def test_without_it_a_run_says_what_the_guide_says(inventory: Path) -> None:
    """And reaches no host, which would take longer and say something else."""
    words = "Attempting to decrypt but no vault secrets found"
    assert words in GUIDE.read_text()
    done = run("ansible-playbook", f"--inventory={inventory}", "site.yml")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    assert "UNREACHABLE" not in done.stdout
