"""Data sets, images, categories and annotations; a catalogue that is there already is taken over as it is."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables that are missing."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "datasets" not in there:
        op.create_table(
            "datasets",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.Text, nullable=False, unique=True),
            sa.Column("folder", sa.Text, nullable=False),
            sa.Column("source", sa.Text, nullable=False),
            sa.Column("imported", sa.DateTime, nullable=False),
        )
    if "categories" not in there:
        op.create_table(
            "categories",
            sa.Column("id", sa.Integer, primary_key=True),
            _key("dataset_id", "datasets"),
            sa.Column("number", sa.BigInteger, nullable=False),
            sa.Column("name", sa.Text, nullable=False),
            sa.UniqueConstraint("dataset_id", "number"),
        )
    if "images" not in there:
        op.create_table(
            "images",
            sa.Column("id", sa.Integer, primary_key=True),
            _key("dataset_id", "datasets"),
            sa.Column("number", sa.BigInteger, nullable=False),
            sa.Column("file_name", sa.Text, nullable=False),
            sa.Column("height", sa.Integer, nullable=False),
            sa.Column("width", sa.Integer, nullable=False),
            sa.UniqueConstraint("dataset_id", "number"),
            sa.UniqueConstraint("dataset_id", "file_name"),
        )
    if "annotations" not in there:
        op.create_table(
            "annotations",
            sa.Column("id", sa.Integer, primary_key=True),
            _key("image_id", "images", index=True),
            _key("category_id", "categories", index=True),
            sa.Column("number", sa.BigInteger, nullable=False),
            *(sa.Column(name, sa.Double, nullable=False) for name in ("x_min", "y_min", "x_max", "y_max")),
            sa.Column("crowd", sa.Boolean, nullable=False),
        )


def _key(name: str, table: str, *, index: bool = False) -> sa.Column[int]:
    return sa.Column(
        name, sa.Integer, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False, index=index
    )
