"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
# The older heads whose code still works with the schema that this makes.
works_with: tuple[str, ...] = ()

MOMENT = sa.DateTime(timezone=True)
# SQLite counts rows by an INTEGER PRIMARY KEY only.
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("prefix", sa.String(length=8), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.CheckConstraint("role IN ('reader', 'recorder')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_table(
        "idempotency_records",
        sa.Column("id", BIG, nullable=False),
        sa.Column("scope", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("passage_ids", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_records")),
        sa.UniqueConstraint("scope", "key", name=op.f("uq_idempotency_records_scope_key")),
    )
    op.create_index(
        op.f("ix_idempotency_records_created_at"), "idempotency_records", ["created_at"]
    )
    op.create_table(
        "login_attempts",
        sa.Column("id", BIG, nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_attempts")),
    )
    op.create_index(op.f("ix_login_attempts_at"), "login_attempts", ["at"])
    op.create_index(op.f("ix_login_attempts_key_at"), "login_attempts", ["key", "at"])
    op.create_table(
        "plazas",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("road", sa.String(length=80), nullable=False),
        sa.Column("time_zone", sa.String(length=40), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plazas")),
        sa.UniqueConstraint("code", name=op.f("uq_plazas_code")),
    )
    op.create_table(
        "schema_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.String(length=40), nullable=False),
        sa.Column("works_with", sa.JSON(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_state")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("session_token", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "vehicle_classes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vehicle_classes")),
        sa.UniqueConstraint("code", name=op.f("uq_vehicle_classes_code")),
    )
    op.create_table(
        "tariffs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plaza_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("valid_from", MOMENT, nullable=False),
        sa.Column("valid_until", MOMENT, nullable=True),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_tariffs_amount")),
        sa.CheckConstraint(
            "valid_until IS NULL OR valid_until > valid_from", name=op.f("ck_tariffs_valid")
        ),
        sa.ForeignKeyConstraint(
            ["class_id"], ["vehicle_classes.id"], name=op.f("fk_tariffs_class_id_vehicle_classes")
        ),
        sa.ForeignKeyConstraint(
            ["plaza_id"], ["plazas.id"], name=op.f("fk_tariffs_plaza_id_plazas")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tariffs")),
        sa.UniqueConstraint(
            "plaza_id",
            "class_id",
            "valid_from",
            name=op.f("uq_tariffs_plaza_id_class_id_valid_from"),
        ),
    )
    op.create_table(
        "peak_windows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tariff_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("starts", sa.Time(), nullable=False),
        sa.Column("ends", sa.Time(), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_peak_windows_amount")),
        sa.CheckConstraint("days BETWEEN 1 AND 127", name=op.f("ck_peak_windows_days")),
        sa.ForeignKeyConstraint(
            ["tariff_id"],
            ["tariffs.id"],
            name=op.f("fk_peak_windows_tariff_id_tariffs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peak_windows")),
    )
    op.create_index(op.f("ix_peak_windows_tariff_id"), "peak_windows", ["tariff_id"])
    op.create_table(
        "passages",
        sa.Column("id", BIG, nullable=False),
        sa.Column("plaza_id", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(length=10), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("plate", sa.String(length=16), nullable=False),
        sa.Column("passed_at", MOMENT, nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("tariff_id", sa.Integer(), nullable=False),
        sa.Column("window_id", sa.Integer(), nullable=True),
        sa.Column("tariff_name", sa.String(length=80), nullable=False),
        sa.Column("payment_method", sa.String(length=10), nullable=False),
        sa.Column("recorded_by", sa.String(length=80), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "payment_method IN ('cash', 'card', 'tag', 'invoice')",
            name=op.f("ck_passages_payment_method"),
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_passages_amount")),
        sa.ForeignKeyConstraint(
            ["class_id"], ["vehicle_classes.id"], name=op.f("fk_passages_class_id_vehicle_classes")
        ),
        sa.ForeignKeyConstraint(
            ["plaza_id"], ["plazas.id"], name=op.f("fk_passages_plaza_id_plazas")
        ),
        sa.ForeignKeyConstraint(
            ["tariff_id"], ["tariffs.id"], name=op.f("fk_passages_tariff_id_tariffs")
        ),
        sa.ForeignKeyConstraint(
            ["window_id"], ["peak_windows.id"], name=op.f("fk_passages_window_id_peak_windows")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passages")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_passages_passed_at_id"), "passages", ["passed_at", "id"])
    op.create_index(op.f("ix_passages_plate_passed_at"), "passages", ["plate", "passed_at"])
    op.create_index(
        op.f("ix_passages_plaza_id_passed_at_id"), "passages", ["plaza_id", "passed_at", "id"]
    )
    op.create_index(op.f("ix_passages_tariff_id_passed_at"), "passages", ["tariff_id", "passed_at"])


def downgrade() -> None:
    """Remove all tables, and what they hold."""
    op.drop_index(op.f("ix_passages_tariff_id_passed_at"), table_name="passages")
    op.drop_index(op.f("ix_passages_plaza_id_passed_at_id"), table_name="passages")
    op.drop_index(op.f("ix_passages_plate_passed_at"), table_name="passages")
    op.drop_index(op.f("ix_passages_passed_at_id"), table_name="passages")
    op.drop_table("passages")
    op.drop_index(op.f("ix_peak_windows_tariff_id"), table_name="peak_windows")
    op.drop_table("peak_windows")
    op.drop_table("tariffs")
    op.drop_table("vehicle_classes")
    op.drop_table("users")
    op.drop_table("schema_state")
    op.drop_table("plazas")
    op.drop_index(op.f("ix_login_attempts_key_at"), table_name="login_attempts")
    op.drop_index(op.f("ix_login_attempts_at"), table_name="login_attempts")
    op.drop_table("login_attempts")
    op.drop_index(op.f("ix_idempotency_records_created_at"), table_name="idempotency_records")
    op.drop_table("idempotency_records")
    op.drop_table("api_keys")
