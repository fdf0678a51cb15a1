"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
# The older heads whose code still works with the schema that this makes. The one before must be
# among them: it serves while this runs, and an operator may go back to it.
works_with: tuple[str, ...] = (${repr(down_revision)},)


def upgrade() -> None:
    """Make the schema what this release needs."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Make it what the release before needs."""
    ${downgrades if downgrades else "pass"}
