"""Tables of the catalogue: data sets, their images and categories, and the annotations that connect these.

Deleting a data set deletes all that belongs to it (ON DELETE CASCADE; SQLite keeps to that only when asked, see
`catalog_database`). Numbers of images, categories and annotations are those of the file they came from; keys are
the database's.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Double, ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of the tables; `Base.metadata` holds them all."""


class Dataset(Base):
    """A data set: one file that was imported."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    folder: Mapped[str] = mapped_column(Text)  # of the images, absolute
    source: Mapped[str] = mapped_column(Text)  # the file, absolute
    imported: Mapped[datetime]  # UTC, without zone, as SQLite knows none


class Category(Base):
    """A kind of object in a data set."""

    __tablename__ = "categories"
    __table_args__ = (UniqueConstraint("dataset_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(Text)


class Image(Base):
    """An image of a data set; sizes in pixels."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("dataset_id", "number"), UniqueConstraint("dataset_id", "file_name"))

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(BigInteger)
    file_name: Mapped[str] = mapped_column(Text)  # below the folder of the data set
    height: Mapped[int]
    width: Mapped[int]


class Annotation(Base):
    """A box around an object, or a group of them, in an image; pixels from its upper left corner."""

    __tablename__ = "annotations"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id", ondelete="CASCADE"), index=True)
    number: Mapped[int] = mapped_column(BigInteger)
    x_min: Mapped[float] = mapped_column(Double)
    y_min: Mapped[float] = mapped_column(Double)
    x_max: Mapped[float] = mapped_column(Double)
    y_max: Mapped[float] = mapped_column(Double)
    crowd: Mapped[bool]
