"""Routes of the trained models: which there are, and scores of what is sent to one of them."""

import asyncio
import base64
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from starlette.datastructures import UploadFile

from tocsin.errors import TocsinError
from tocsin.service.image_bodies import SentImage, read_images
from tocsin.service.image_scores import ClassModel, ImageModel, ImageWork
from tocsin.service.json_answers import to_json
from tocsin.service.loaded_models import LoadedModel, LoadedModels, NoScorerError
from tocsin.service.model_store import UnknownModelError
from tocsin.service.score_bodies import Rows, rows_of_csv, rows_of_json
from tocsin.service.series_scores import SeriesModel, SeriesWork
from tocsin.service.settings import Settings

router = APIRouter(prefix="/v1/models", tags=["models"])

SMALL = 4096  # bytes of a body that is read at once: going to a thread and back would take longer

Kind = Literal["series", "image", "classification", "detection"]
Name = Annotated[str, Path(max_length=500, description="As in the list of models.")]

BODIES: Mapping[str, Any] = {
    "application/json": {"schema": Rows.model_json_schema()},
    "text/csv": {"schema": {"type": "string"}},
    **{
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("png", "jpeg", "tiff")
    },
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
}


@router.get("")
async def list_models(request: Request, kind: Kind | None = None) -> list[dict[str, Any]]:
    """All trained models, by name."""
    models: LoadedModels = request.app.state.models
    cards = await asyncio.to_thread(models.store.cards)
    return [card.public() for card in cards if kind is None or card.kind == kind]


@router.post("/{name}/score", openapi_extra={"requestBody": {"required": True, "content": BODIES}})
async def score(
    request: Request,
    name: Name,
    heatmap: Annotated[bool, Query(description="Of images: a PNG of where the score comes from.")] = False,
    contributions: Annotated[bool, Query(description="Of series: how unusual each channel is.")] = False,
) -> Response:
    """Score rows or images: as predict.py does with the same model."""
    models: LoadedModels = request.app.state.models
    settings: Settings = request.app.state.settings
    try:
        loaded = await models.get(name)
        if isinstance(loaded.model, SeriesModel):
            work = await _series_work(request, loaded.model, settings, contributions=contributions)
            await loaded.batcher.run(work)
            return await _series_answer(request, loaded, loaded.model, work)
        return await _score_images(request, loaded, loaded.model, settings, heatmap=heatmap)
    except TocsinError as error:
        raise HTTPException(status_of(error), str(error)) from error


def status_of(error: TocsinError) -> int:
    """Status of an answer that says what is wrong."""
    if isinstance(error, UnknownModelError):
        return 404
    return 409 if isinstance(error, NoScorerError) else 422


# --- series -------------------------------------------------------------------------------------------------


async def _series_work(
    request: Request, model: SeriesModel, settings: Settings, *, contributions: bool
) -> SeriesWork:
    read = {"application/json": rows_of_json, "text/csv": rows_of_csv}.get(media_type(request))
    if read is None:
        raise HTTPException(415, "this model reads series: send application/json or text/csv")
    body = await read_body(request, settings.limits.body_mb)

    def prepare() -> SeriesWork:
        channels = model.trained.channel_names
        series = read(body, channels=channels, limit=int(settings.limits.rows))
        return SeriesWork(series, model.trained, contributions=contributions)

    return prepare() if len(body) <= SMALL else await asyncio.to_thread(prepare)


async def _series_answer(
    request: Request, loaded: LoadedModel, model: SeriesModel, work: SeriesWork
) -> Response:
    def write() -> Response:
        answer = model.answer(work)
        if prefers(request, "text/csv"):
            return Response(model.table(answer), media_type="text/csv")
        return Response(to_json({"model": loaded.card.name, **answer}), media_type="application/json")

    return write() if work.n_steps <= SMALL // 8 else await asyncio.to_thread(write)


# --- images -------------------------------------------------------------------------------------------------


async def _score_images(
    request: Request,
    loaded: LoadedModel,
    model: ImageModel | ClassModel,
    settings: Settings,
    *,
    heatmap: bool,
) -> Response:
    as_picture = prefers(request, "image/png")
    if (heatmap or as_picture) and isinstance(model, ClassModel):
        raise HTTPException(422, f"model {loaded.card.name} classifies images and has no heat map")
    sent = await _sent_images(request, settings)
    if as_picture and len(sent) != 1:
        raise HTTPException(
            406, f"there are {len(sent)} images, but image/png holds one; ask for application/json"
        )
    read = partial(read_images, sent, model.reader, pixels=int(settings.limits.pixels))
    images = read() if sum(len(one.data) for one in sent) <= SMALL else await asyncio.to_thread(read)
    work = await loaded.batcher.run(ImageWork(images, maps=heatmap or as_picture))
    answer = {"model": loaded.card.name, "images": [one.name for one in sent], **model.answer(work)}
    if isinstance(model, ImageModel) and work.keeps_maps:
        pictures = await asyncio.to_thread(model.heat_maps, work)
        if as_picture:
            return Response(pictures[0], media_type="image/png")
        answer["heatmaps"] = [base64.b64encode(picture).decode() for picture in pictures]
    return Response(to_json(answer), media_type="application/json")


async def _sent_images(request: Request, settings: Settings) -> list[SentImage]:
    kind = media_type(request)
    most = int(settings.limits.images)
    if kind.startswith("image/"):
        return [SentImage("the image", await read_body(request, settings.limits.upload_mb))]
    if kind != "multipart/form-data":
        raise HTTPException(
            415, "this model reads images: send image/png, image/jpeg, image/tiff or multipart"
        )
    async with request.form(max_files=most, max_fields=1) as form:
        uploads = [value for _, value in form.multi_items()]
        sent = [
            SentImage((upload.filename or f"image {index}")[:200], await upload.read())
            for index, upload in enumerate(uploads)
            if isinstance(upload, UploadFile)
        ]
    if not sent or len(sent) != len(uploads):
        raise HTTPException(422, "the form must hold one file or more, each an image, and nothing else")
    return sent


# --- requests -----------------------------------------------------------------------------------------------


def media_type(request: Request) -> str:
    """What the body is, without its options."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def prefers(request: Request, kind: str) -> bool:
    """Whether the client names this kind of answer first."""
    return request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower() == kind


async def read_body(request: Request, limit_mb: float) -> bytes:
    """The body of a request, refused as soon as it is too long.

    Raises:
        HTTPException: It is longer.
    """
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit_mb * 2**20:
            raise HTTPException(413, f"the body is larger than {limit_mb:g} MB; send it in parts")
        pieces.append(piece)
    return b"".join(pieces)
