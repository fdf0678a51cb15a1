"""The site of `make docs`: every page, nothing from elsewhere, what is known of commands."""

from __future__ import annotations

import re
from pathlib import Path

import docs
import guides
import pytest
import yaml
from conftest import PROJECT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; a link to nothing would have failed it."""
    return docs.build(tmp_path_factory.mktemp("docs") / "site").parent


def test_the_navigation_has_every_page_once() -> None:
    """A page that nobody can reach is a page that nobody reads."""
    nav, files = docs.navigation(), docs.tracked()
    pages = docs.chosen(nav, files)
    assert len(pages) == len(set(pages))
    assert sorted([*pages, *nav["left_out"]]) == files
    named = {entry for section in nav["sections"] for entry in section["pages"]}
    assert set(nav["titles"]) <= named
    assert set(nav["folders"]) == {each for each in named if not each.endswith(".md")} - {"plugins"}


def test_it_loads_nothing_from_elsewhere(built: Path) -> None:
    """It is read on machines without a network, and nobody is told who reads it."""
    assert list(docs.external(built)) == []
    assert len(list(built.rglob("*.html"))) > 120


def test_every_plugin_and_every_role_has_a_page(built: Path) -> None:
    """Whoever looks something up finds it under its name."""
    plugins = PROJECT / "collections/ansible_collections/wsgi/host/plugins"
    folders = {"module": "modules", "callback": "callback", "lookup": "lookup", "vars": "vars"}
    for kind, folder in folders.items():
        for path in plugins.joinpath(folder).glob("*.py"):
            assert (built / "plugins" / f"{path.stem}_{kind}.html").is_file()
    for path in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        role = path.parent.parent.name
        page = (built / "roles" / role / "README.html").read_text()
        shown = page.replace("<wbr>", "")
        for name in yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {}):
            assert f">{name}</code>" in shown, name


def test_blocks_say_whether_they_are_run(built: Path) -> None:
    page = (built / "docs" / "APPLICATIONS.html").read_text()
    typed = (
        '<p class="commands run">Run as written by <code>molecule/application/tests/test_guide.py'
    )
    assert page.count(typed) == 5
    assert '<p class="commands not-run">Not run by a test: ' in page


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<img alt='' src=//cdn.example/x.png>",
        '<link href="https://fonts.example/css" rel="stylesheet">',
        "@import 'https://fonts.example/css'",
        "src: url(//fonts.example/a.woff2)",
    ],
)
def test_what_would_be_loaded_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(text)
    assert len(list(docs.external(tmp_path))) == 1
    (tmp_path / "a.html").write_text('<a href="https://example.com">elsewhere</a>')
    assert list(docs.external(tmp_path)) == []


# Blocks of commands -------------------------------------------------------------------------------


def pages() -> list[str]:
    """Pages whose commands are for today."""
    return [name for name in docs.tracked() if not name.startswith("docs/decisions/")]


def test_every_block_of_commands_is_run_checked_or_listed() -> None:
    """A command that nobody has typed is a trap at night, unless the page says so."""
    wrong = []
    for name in pages():
        for block in guides.blocks((PROJECT / name).read_text(encoding="utf-8")):
            where = f"{name}:{block.line}"
            if block.state == guides.UNKNOWN:
                wrong.append(
                    f"{where}: put <!-- commands: TEST --> or <!-- commands: not run: WHY -->"
                )
            wrong += [
                f"{where}: no {test}" for test in block.tests if not (PROJECT / test).is_file()
            ]
    assert wrong == []


def test_a_block_that_is_run_as_written_is_read_by_its_test() -> None:
    for name in pages():
        for block in guides.blocks((PROJECT / name).read_text(encoding="utf-8")):
            if block.state == guides.RUN:
                text = (PROJECT / block.tests[0]).read_text(encoding="utf-8")
                path = Path(name)
                assert f'"{path.parent.name}" / "{path.name}"' in text, f"{name}:{block.line}"


def test_playbooks_variables_and_targets_are_there() -> None:
    found = [
        f"{name}: {fault}"
        for name in [
            *pages(),
            *(str(x.relative_to(PROJECT)) for x in PROJECT.glob("playbooks/*.yml")),
        ]
        if name != "CHANGELOG.md"
        for fault in guides.faults((PROJECT / name).read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("`ansible-playbook playbooks/deplo.yml`", "there is no playbook playbooks/deplo.yml"),
        ("```sh\nansible-playbook -i x wsgi.host.nothing\n```", "no playbook wsgi.host.nothing"),
        ("`ansible-playbook site.yml -e application_revison=x`", "a variable application_revison"),
        ("```sh\nmake everything\n```", "make everything: there is no such target"),
        ("`ansible-playbook -i hosts.yml playbooks/rollback.yml -e release=ID`", ""),
        ("`make up`, and you make do", ""),
    ],
)
def test_what_is_not_there_is_found(text: str, fault: str) -> None:
    found = "; ".join(guides.faults(text))
    assert fault in found
    assert bool(found) == bool(fault)


BLOCK = "```sh\nmkdir x\n```\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"# A\n\n{BLOCK}", guides.UNKNOWN),
        ("# A\n\n```sh\nsudo toll-app status\nmake up  # first\n```\n", guides.CHECKED),
        ("# A\n\n```sh\nmake up && rm -r x\n```\n", guides.UNKNOWN),
        (f"# A\n\n<!-- commands: not run: slow -->\n\n{BLOCK}", guides.NOT_RUN),
        (f"# A\n\n<!-- commands: a/test.py -->\n\nWords.\n\n## B\n\n{BLOCK}", guides.RUN),
        (f"# A\n\nWords.\n\n<!-- commands: not run: slow -->\n\nWords.\n\n{BLOCK}", guides.UNKNOWN),
        (f"# A\n\n## B\n\n{BLOCK}\nRehearsed: `tests/unit/test_site.py`.\n", guides.REHEARSED_BY),
        (f"# A\n\n## B\n\n{BLOCK}\n## C\n\nRehearsed: `tests/unit/x.py`.\n", guides.UNKNOWN),
    ],
)
def test_what_a_page_says_of_its_commands(text: str, state: str) -> None:
    (block,) = guides.blocks(text)
    assert block.state == state
    assert re.match(r"mkdir|sudo|make", text.splitlines()[block.line - 1])
