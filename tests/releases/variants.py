"""Copies of the application that differ from it in one thing: each is a release of its own.

A variant is a file of variants/ that is put beside app.py and applied to the finished application,
so that it stands whatever the application's inside looks like. What is built from such a folder
goes the way of every release.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
APP = PROJECT / "app"
VARIANTS = Path(__file__).parent / "variants"
MIGRATIONS = Path("toll", "migrations", "versions")
CALL = "\n\nimport variant  # noqa: E402\n\nvariant.apply(app)\n"
REVISION = re.compile(r"^revision\b[^=]*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
PARENT = re.compile(r"^down_revision\b[^=]*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)

# Goes on from whatever migration is the newest.
MIGRATION = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{parent}"
branch_labels = None
depends_on = None
works_with = {works_with!r}


def upgrade():
    op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True))
{more}

def downgrade():
    op.drop_table("{table}")
'''


@dataclass(frozen=True)
class Migration:
    """A migration that a variant brings.

    Attributes:
        works: whether the release before it can go on with the schema.
        fails: whether it raises, after it has changed something.
    """

    works: bool = True
    fails: bool = False


def names() -> list[str]:
    """The variants that there are."""
    return sorted(path.stem for path in VARIANTS.glob("*.py"))


def head(folder: Path) -> str:
    """The newest of the migrations in a folder.

    Raises:
        ValueError: there is not exactly one.
    """
    revisions: set[str] = set()
    parents: set[str] = set()
    for path in folder.glob("*.py"):
        text = path.read_text()
        revisions.update(REVISION.findall(text))
        parents.update(PARENT.findall(text))
    found = sorted(revisions - parents)
    if len(found) != 1:
        raise ValueError(f"{folder}: the newest migration is one of {found}")
    return found[0]


def migrate(copy: Path, mark: str, wanted: Migration) -> str:
    """Add a migration to a copy of the application; returns its revision."""
    folder = copy / MIGRATIONS
    parent = head(folder)
    revision = f"9_{re.sub('[^0-9a-z]', '_', mark)}"
    text = MIGRATION.format(
        title=f"A table for {mark}",
        revision=revision,
        parent=parent,
        works_with=(parent,) if wanted.works else (),
        table=f"proof_{revision}",
        more='    raise RuntimeError("this migration fails half way")\n' if wanted.fails else "",
    )
    (folder / f"{revision}.py").write_text(text)
    return revision


def make(
    folder: Path,
    mark: str,
    variant: str = "marked",
    *,
    migration: Migration | None = None,
    app: Path = APP,
) -> Path:
    """Make a copy of the application that is another release.

    Args:
        folder: where to.
        mark: its name in answers; the same mark, variant and application give the same release.
        variant: a file of variants/.
        migration: a migration to bring.
        app: the application.

    Returns:
        The copy's path, to be told as the description's `source`.
    """
    copy = folder / mark
    shutil.rmtree(copy, ignore_errors=True)
    ignored = shutil.ignore_patterns(
        "tests", "instance", "__pycache__", ".*", "*.db*", "*.sqlite3*"
    )
    shutil.copytree(app, copy, ignore=ignored)
    (copy / "mark").write_text(f"{mark}\n")
    # They build on one another.
    for path in VARIANTS.glob("*.py"):
        shutil.copy(path, copy)
    shutil.copyfile(VARIANTS / f"{variant}.py", copy / "variant.py")
    with (copy / "app.py").open("a") as program:
        program.write(CALL)
    if migration:
        migrate(copy, mark, migration)
    return copy
