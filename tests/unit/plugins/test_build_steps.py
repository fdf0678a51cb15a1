"""Build steps of `wsgi.host.bundle`: what they see, what comes of their results, how they fail."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import steps
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import Bundle
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import BundleError
from test_bundle import bundle, contents, options, project

__all__ = ["project"]
COUNT = "echo run >> {log}; mkdir -p out; cat app.py | tr a-z A-Z > out/app.txt"


def shell(text: str) -> list[list[str]]:
    return [["sh", "-c", text]]


def test_what_a_step_makes_is_part_of_the_bundle_and_of_its_id(project: Path) -> None:
    plain = bundle(project)
    built = bundle(project, build=shell("mkdir out; echo made > out/file; rm static/a.css"))
    assert built.id != plain.id
    assert built.content != plain.content
    built.build()
    packed = contents(built.archive)
    assert packed["app/out/file"] == b"made\n"
    assert "app/static/a.css" not in packed
    # The source itself stays as it was.
    assert not (project / "app" / "out").exists()
    assert (project / "app" / "static" / "a.css").exists()


def test_the_same_inputs_are_built_once(project: Path, tmp_path: Path) -> None:
    """A second run, and each further host of a run, builds nothing and gets the same id."""
    log = tmp_path / "log"
    build = shell(COUNT.format(log=log))
    ids = {
        bundle(project, build=build, architecture=each).content for each in ("x86_64", "aarch64")
    }
    assert len(ids) == 1
    assert log.read_text() == "run\n"
    (project / "app" / "app.py").write_text("import beta\n")
    assert bundle(project, build=build).content not in ids
    assert log.read_text() == "run\nrun\n"


@pytest.mark.parametrize("change", ["edit", "remove"])
def test_what_changes_before_the_steps_run_is_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """While the packages of the steps are installed, or another build has the cache."""
    source = project / "app" / "app.py"
    before, packages_for = source.read_text(), steps.packages_for

    def slow(*arguments: Any) -> Path:
        source.unlink()
        if change == "edit":
            source.write_text("half = ")
        return packages_for(*arguments)

    monkeypatch.setattr(steps, "packages_for", slow)
    with pytest.raises(BundleError, match="changed while it was built"):
        bundle(project, build=[["true"]])
    source.write_text(before)
    monkeypatch.setattr(steps, "packages_for", packages_for)
    assert bundle(project, build=[["true"]]).files["app.py"].read_text() == before


@pytest.mark.parametrize("change", ["steps", "lock", "mode", "hidden"])
def test_every_input_counts(project: Path, change: str) -> None:
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    source = project / "app"
    names = steps.source_files(source, False, [])
    before = steps.digest(source, names, [["true"]], "lock")
    commands, lock = [["true"]], "lock"
    if change == "steps":
        commands = [["true"], ["true"]]
    elif change == "lock":
        lock = "other"
    elif change == "mode":
        (source / "app.py").chmod(0o755)
    else:
        (source / ".npmrc").write_text("ignore-scripts=true\n")
        names = steps.source_files(source, False, [])
    assert steps.digest(source, names, commands, lock) != before


def test_a_source_that_git_ignores_as_a_whole_is_seen_all_the_same(project: Path) -> None:
    """Steps would run in an empty directory, and say that the application's files are missing."""
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".gitignore").write_text("app\n")
    assert steps.source_files(project / "app", False, ["app.py"]) == ["app.py"]


def test_what_git_ignores_is_no_input(project: Path) -> None:
    """Packages of npm in the working tree are another machine's, and secrets nobody's business."""
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".gitignore").write_text("node_modules\n.env\n")
    (project / "app" / "node_modules").mkdir()
    (project / "app" / "node_modules" / "a.js").write_text("")
    (project / "app" / ".browserslistrc").write_text("defaults\n")
    seen = steps.source_files(project / "app", False, [])
    assert ".browserslistrc" in seen
    assert "tests/test_app.py" in seen
    assert not {".env", "node_modules/a.js"} & set(seen)


def test_without_git_steps_see_what_is_shipped(project: Path) -> None:
    built = bundle(project, build=shell("ls -A > seen"))
    assert built.files["seen"].read_text() == "app.py\nseen\nstatic\n"


def test_a_revision_is_seen_whole(project: Path) -> None:
    """It comes from git, in a directory that git does not know."""
    source = project / "app"
    whole = Bundle(
        options(project, build=shell("ls -A > seen")), project / "cache", commit="0" * 40
    )
    assert whole.files["seen"].read_text() == ".env\napp.py\nseen\nstatic\ntests\n"
    assert source.exists()


def test_the_locked_packages_come_first(project: Path) -> None:
    made = bundle(project, build=[["sh", "-c", "alpha-run > version; python -c 'import beta'"]])
    assert made.files["version"].read_text() == "1.0\n"
    before = sorted((project / "cache" / steps.ENVIRONMENTS).iterdir())
    bundle(project, build=shell("echo another > step"))
    assert sorted((project / "cache" / steps.ENVIRONMENTS).iterdir()) == before


def test_a_step_does_not_see_what_this_process_was_given(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of a cloud, the password of the vault: a package of npm would read them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/vault")
    monkeypatch.setenv("SHOP_SECRET", "secret")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    monkeypatch.setenv("npm_config_registry", "https://packages.example")
    write = "import json, os; json.dump(dict(os.environ), open('seen.json', 'w'))"
    made = bundle(project, build=[["python", "-c", write]])
    seen = json.loads(made.files["seen.json"].read_text())
    assert not {"AWS_SECRET_ACCESS_KEY", "ANSIBLE_VAULT_PASSWORD_FILE", "SHOP_SECRET"} & set(seen)
    assert seen["NO_PROXY"] == "intern.example"
    assert seen["npm_config_registry"] == "https://packages.example"
    assert seen["SOURCE_DATE_EPOCH"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            ["sh", "-c", "seq 100; exit 3"],
            ["step 2 of 2, `sh -c 'seq 100; exit 3'`, failed with exit code 3", "81\n", "100"],
        ),
        (["no-such-tool"], ["`no-such-tool`, cannot be run: No such file", "Install no-such-tool"]),
        (["sh", "-c", "kill -9 $$"], ["was ended by signal 9", "It wrote nothing."]),
    ],
)
def test_a_failure_names_the_step_and_what_it_wrote(
    project: Path, step: list[str], said: list[str]
) -> None:
    with pytest.raises(BundleError) as error:
        bundle(project, build=[["true"], step])
    for part in said:
        assert part in str(error.value)
    assert "\n80\n" not in str(error.value)
    # Nothing half is kept.
    assert not [*(project / "cache").glob(f"{steps.RESULTS}/*")]
    assert not [*(project / "cache").glob(".build-*")]


def test_a_step_that_hangs_is_ended_with_all_that_it_started(project: Path) -> None:
    start = time.monotonic()
    hanging = shell("sleep 60 & echo waiting; sleep 60")
    with pytest.raises(BundleError, match=r"not finished within 1 s and was stopped(.|\n)*waiting"):
        bundle(project, build=hanging, build_time_limit_seconds=1)
    assert time.monotonic() - start < 20


def test_a_link_among_the_results_is_refused(project: Path) -> None:
    with pytest.raises(BundleError, match=r"link is a symbolic link.*steps of source\.build"):
        bundle(project, build=shell("ln -s /etc/passwd link"))


def test_packages_of_npm_stay_behind(project: Path) -> None:
    made = bundle(project, build=shell("mkdir -p node_modules/x; echo 1 > node_modules/x/a.js"))
    assert not [name for name in made.files if "node_modules" in name]


def test_check_mode_runs_no_step(project: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments: dict[str, Any] = {"build": shell(COUNT.format(log=log))}
    there = options(project, **arguments)
    unknown = Bundle(there, project / "cache", run_steps=False)
    assert unknown.steps_missing
    assert not log.exists()
    real = Bundle(there, project / "cache")
    known = Bundle(there, project / "cache", run_steps=False)
    assert not known.steps_missing
    assert known.id == real.id != unknown.id


def test_what_was_not_asked_for_lately_goes(project: Path) -> None:
    bundle(project, build=shell("true"))
    steps.tidy(project / "cache", 3600)
    assert [*(project / "cache").glob(f"{steps.RESULTS}/*")]
    steps.tidy(project / "cache", -1)
    assert not [*(project / "cache").glob(f"{steps.RESULTS}/*")]
    assert not [*(project / "cache").glob(f"{steps.ENVIRONMENTS}/*")]
