"""The schema goes up and down on both databases, and the release before keeps serving meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session
from support import SECRET

from toll import Settings, create_app, schema, steps
from toll.database import make_engine
from toll.models import Model
from toll.services import demo, passages

# What this release's code needs.
HEAD = schema.head()
MIGRATION = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
works_with = {works_with!r}


def upgrade():
    {up}


def downgrade():
    {down}
'''
ADD_COLUMN = (
    'op.add_column("passages", sa.Column("axles", sa.Integer()))',
    'op.drop_column("passages", "axles")',
)
# SQLite makes the table again, to which others refer.
CHANGE_TABLE = (
    'with op.batch_alter_table("plazas") as batch: batch.alter_column("road", type_=sa.Text())',
    'with op.batch_alter_table("plazas") as batch: batch.alter_column("road", type_=sa.String(80))',
)


class NextRelease:
    """The migrations of a release to come: those that are there and more."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(schema.MIGRATIONS, directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.head = schema.head()

    def add(self, title: str, up: str, down: str, works_with: tuple[str, ...]) -> str:
        """Add a migration; return its revision."""
        revision = f"{int(self.head) + 1:04}"
        text = MIGRATION.format(
            title=title,
            revision=revision,
            before=self.head,
            works_with=works_with,
            up=up,
            down=down,
        )
        (self.directory / "versions" / f"{revision}_next.py").write_text(text)
        self.head = revision
        return revision


@pytest.fixture
def next_release(tmp_path: Path) -> NextRelease:
    return NextRelease(tmp_path / "migrations")


def tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def record_one(url: str, plate: str = "AA12BB") -> int:
    """Do what a release does all day."""
    engine = make_engine(url)
    with Session(engine) as session:
        new = passages.NewPassage(
            plaza="harbour-bridge", lane="1", vehicle_class="car", plate=plate, payment_method="tag"
        )
        recorded = passages.record(session, new, "key:test", ("key:1", plate, "hash"))
        assert passages.find(session, passages.PassageFilter(plate=plate)).items
        number = recorded.passage.id
    engine.dispose()
    return number


def test_all_the_way_up_down_and_up_again(empty_url):
    assert schema.migrate(empty_url)[0] == ("0001", "The first schema.")
    assert tables(empty_url) == {*Model.metadata.tables, "alembic_version"}

    schema.downgrade(empty_url, "base")
    assert tables(empty_url) == {"alembic_version"}

    assert schema.migrate(empty_url)
    engine = make_engine(empty_url)
    with Session(engine) as session:
        demo.seed_tariffs(session)
    engine.dispose()
    assert record_one(empty_url)


def test_migrating_again_changes_nothing(migrated_url):
    assert schema.migrate(migrated_url) == []


def test_migrations_make_what_the_models_say(migrated_url):
    """A model that was changed without a migration works on the developer's machine only."""
    engine = make_engine(migrated_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Model.metadata) == []
    engine.dispose()


def test_constraints_of_the_models_are_in_the_database(migrated_url):
    """Alembic does not compare checks, and SQLite's types hold anything."""
    engine = make_engine(migrated_url)
    inspector = sa.inspect(engine)
    for name, table in Model.metadata.tables.items():
        stated = {
            str(each.name) for each in table.constraints if isinstance(each, sa.CheckConstraint)
        }
        assert {each["name"] for each in inspector.get_check_constraints(name)} == stated
    engine.dispose()


def test_each_migration_says_which_releases_it_works_with():
    """A release may claim an older one only if every step since then kept it working."""
    scripts = list(steps.scripts_of(schema.MIGRATIONS).walk_revisions())[::-1]
    before: set[str] = set()
    for script in scripts:
        stated = set(steps.works_with(script))
        if script.down_revision is not None:
            assert stated <= before | {script.down_revision}
            assert script.down_revision in stated, "the release before serves while this runs"
        before = stated


def columns(url: str) -> dict[str, set[tuple[str, str, bool]]]:
    """Return each table's columns: name, type, whether it may be empty."""
    engine = make_engine(url)
    inspector = sa.inspect(engine)
    found = {
        name: {
            (each["name"], str(each["type"]), each["nullable"])
            for each in inspector.get_columns(name)
        }
        for name in inspector.get_table_names()
    }
    engine.dispose()
    return found


def test_sessions_leave_what_the_release_before_uses_as_it_was(empty_url):
    """0002 claims to work with 0001: it may add, and change nothing."""
    schema.migrate(empty_url, "0001")
    before = columns(empty_url)
    schema.migrate(empty_url, "0002")
    after = columns(empty_url)
    assert after.keys() - before.keys() == {"browser_sessions"}
    assert {name: after[name] for name in before} == before
    # That release knows no sessions, and must be able to do all it could to its users.
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        assert schema.schema_status(connection).database == "0002"
        stated = connection.scalar(sa.text("SELECT works_with FROM schema_state"))
        assert "0001" in str(stated)
        users = sa.table(
            "users", *(sa.column(name) for name, _, nullable in before["users"] if not nullable)
        )
        values = {"id": 1, "name": "anna", "password_hash": "x", "role": "viewer", "active": True}
        moment = {"session_token": "x", "created_at": "2026-01-01 00:00:00"}
        connection.execute(sa.insert(users).values(**values, **moment))
        sessions = sa.table(
            "browser_sessions", *map(sa.column, ("id", "key_hash", "user_id", "created_at"))
        )
        row = {"id": 1, "key_hash": "x", "user_id": 1, "created_at": moment["created_at"]}
        connection.execute(sa.insert(sessions).values(**row))
        connection.execute(sa.text("DELETE FROM users"))
        assert connection.scalar(sa.select(sa.func.count()).select_from(sessions)) == 0
    engine.dispose()
    schema.downgrade(empty_url, "0001")
    assert columns(empty_url) == before


def test_the_release_before_keeps_working(database_url, next_release):
    """It serves while the next one's migration runs, and an operator may go back to it."""
    first = record_one(database_url, "BEFORE1")
    second = next_release.add("Axles", *ADD_COLUMN, works_with=(HEAD,))
    third = next_release.add("Roads", *CHANGE_TABLE, works_with=(second, HEAD))
    app = create_app(Settings(secret_key=SECRET, database_url=database_url))
    assert app.test_client().get("/readyz").status_code == 200

    steps = schema.migrate(database_url, migrations=next_release.directory)
    assert [revision for revision, _ in steps] == [second, third]

    assert record_one(database_url, "AFTER1") > first
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json["schema"] == {"head": HEAD, "database": third}
    result = app.test_cli_runner().invoke(args=["toll", "migrate"])
    assert result.exit_code == 0, result.output
    assert f"newer ({third})" in result.output
    # Rolled back, and forward again.
    result = app.test_cli_runner().invoke(args=["toll", "schema", "--json"])
    assert json.loads(result.output) == {
        "head": HEAD,
        "database": third,
        "compatible": True,
        "reason": "",
    }
    schema.downgrade(database_url, HEAD, migrations=next_release.directory)
    engine = make_engine(database_url)
    with Session(engine) as session:
        found = passages.find(session, passages.PassageFilter()).items
        assert [each.plate for each in found] == ["AFTER1", "BEFORE1"]
        assert schema.schema_status(engine) == schema.SchemaStatus(HEAD, HEAD, True)
    engine.dispose()


def test_a_release_whose_schema_is_gone_says_so(database_url, next_release):
    """Going back to it would fail later, in the middle of a request."""
    second = next_release.add("Drops", 'op.drop_table("api_keys")', "pass", works_with=())
    schema.migrate(database_url, migrations=next_release.directory)
    app = create_app(Settings(secret_key=SECRET, database_url=database_url))

    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["failed"] == ["schema"]
    for arguments in (["schema"], ["user", "list"], ["key", "list"]):
        result = app.test_cli_runner().invoke(args=["toll", *arguments])
        assert result.exit_code == 1
        assert f"the schema {second}, and this release needs {HEAD}" in result.output
        assert "restore the copy" in result.output


def test_an_unmigrated_database_is_not_ready(empty_url):
    app = create_app(Settings(secret_key=SECRET, database_url=empty_url))
    assert app.test_client().get("/readyz").status_code == 503
    result = app.test_cli_runner().invoke(args=["toll", "schema"])
    assert result.exit_code == 1
    assert "flask --app app toll migrate" in result.output


def test_a_migration_that_fails_leaves_the_schema_as_it_was(database_url, next_release):
    """Half a migration is one that can neither be repeated nor undone."""
    second = next_release.add("Axles", *ADD_COLUMN, works_with=(HEAD,))
    next_release.add("Fails", 'op.execute("SELECT nonsense FROM nowhere")', "pass", (second,))
    with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
        schema.migrate(database_url, migrations=next_release.directory)

    engine = make_engine(database_url)
    assert schema.schema_status(engine).database == HEAD
    assert "axles" not in {each["name"] for each in sa.inspect(engine).get_columns("passages")}
    engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_migration_that_breaks_references_is_undone(database_url, next_release):
    """SQLite does not check them while tables are made again."""
    record_one(database_url)
    next_release.add("Loses", 'op.execute("DELETE FROM vehicle_classes")', "pass", (HEAD,))
    with pytest.raises(schema.SchemaError, match="refer to nothing, in passages, tariffs"):
        schema.migrate(database_url, migrations=next_release.directory)
    assert record_one(database_url, "STILL1")


def test_a_migration_without_the_statement_is_refused(database_url, next_release):
    revision = next_release.add("Forgets", "pass", "pass", ())
    file = next(next_release.directory.glob(f"versions/{revision}_*"))
    file.write_text(file.read_text().replace("works_with = ()", ""))
    with pytest.raises(schema.SchemaError, match=f"{revision} does not state works_with"):
        schema.migrate(database_url, migrations=next_release.directory)


def test_a_revision_that_is_not_there(migrated_url):
    with pytest.raises(schema.SchemaError, match="cannot be brought to 9999"):
        schema.downgrade(migrated_url, "9999")


def _migrate(url: str, barrier, results) -> None:
    barrier.wait()
    results.put(len(schema.migrate(url)))


def test_hosts_that_migrate_at_once_take_turns(empty_url):
    """A fleet's hosts, or an operator and a deploy."""
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(3), fork.Queue()
    processes = [fork.Process(target=_migrate, args=(empty_url, barrier, results)) for _ in "123"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(results.get() for _ in processes) == [0, 0, len(list(_revisions()))]


def _revisions():
    return steps.scripts_of(schema.MIGRATIONS).walk_revisions()


def test_recording_goes_on_beside_a_migration(database_url, next_release):
    """The service does not stop for it; writers wait for it at most."""
    fork = multiprocessing.get_context("fork")
    stop, results = fork.Event(), fork.Queue()
    writer = fork.Process(target=_write_until, args=(database_url, stop, results))
    writer.start()
    assert results.get() == "began"
    next_release.add("Axles", *ADD_COLUMN, works_with=(HEAD,))
    schema.migrate(database_url, migrations=next_release.directory)
    stop.set()
    written = results.get()
    writer.join()

    engine = make_engine(database_url)
    with Session(engine) as session:
        assert passages.count(session, passages.PassageFilter()) == written > 0
    engine.dispose()


def _write_until(url: str, stop, results) -> None:
    engine = make_engine(url)
    written = 0
    with Session(engine) as session:
        while not stop.is_set():
            new = passages.NewPassage(
                plaza="bay-crossing",
                lane="1",
                vehicle_class="car",
                plate=f"W{written:05}",
                payment_method="tag",
                passed_at=datetime(2026, 3, 1, tzinfo=UTC),
            )
            passages.record(session, new, "key:writer")
            written += 1
            if written == 1:
                results.put("began")
    engine.dispose()
    results.put(written)


def test_alembics_own_command_line_finds_the_migrations():
    """Developers make the next migration with it."""
    import tomllib

    project = Path(schema.__file__).parents[1] / "pyproject.toml"
    location = tomllib.loads(project.read_text())["tool"]["alembic"]["script_location"]
    assert Path(location.replace("%(here)s", str(project.parent))) == schema.MIGRATIONS
