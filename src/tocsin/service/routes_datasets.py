"""Addresses of the data sets: upload, list, delete."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile
from pydantic import BaseModel

from tocsin.service import datasets
from tocsin.service.answers import problems

router = APIRouter(prefix="/v1/datasets", tags=["data sets"])


class DatasetAnswer(BaseModel):
    """A data set: its numbers of images and annotations, the names of its categories, and when it came (UTC)."""

    name: str
    images: int
    annotations: int
    categories: list[str]
    imported: datetime


@router.post("", status_code=201, response_model=DatasetAnswer, responses=problems(409, 422))
def upload(
    request: Request,
    response: Response,
    name: Annotated[str, Form(description="Up to 64 letters, digits, - _ .", pattern=f"^{datasets.NAME}$")],
    file: Annotated[
        UploadFile, File(description="Zip of instances.json and images/, or of images/ and labels/")
    ],
) -> dict[str, Any]:
    """Upload images with boxes: a zip of a COCO file or of YOLO's text files, with the images."""
    state = request.app.state
    row = datasets.add(state.engine, state.settings, name, file.file)
    response.headers["Location"] = f"/v1/datasets/{name}"
    return row


@router.get("", response_model=list[DatasetAnswer])
def list_datasets(request: Request) -> list[dict[str, Any]]:
    """List the data sets."""
    with request.app.state.engine.connect() as connection:
        return datasets.rows(connection)


@router.delete("/{name}", status_code=204, responses=problems(404, 409, 422))
def delete(request: Request, name: Annotated[str, Path(description="Of the data set")]) -> None:
    """Delete a data set; one that a patch job reads is kept."""
    datasets.remove(request.app.state.engine, request.app.state.settings, name)
