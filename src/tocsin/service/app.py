"""The application: which routes there are, and what every request passes on its way to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from tocsin import __version__
from tocsin.service import answers, routes_datasets, routes_models, routes_page, routes_patches, streams
from tocsin.service.database import open_database
from tocsin.service.datasets import tidy
from tocsin.service.gate import Gate
from tocsin.service.loaded_models import scorers
from tocsin.service.settings import Settings
from tocsin.service.workers import patch_workers


class Health(BaseModel):
    """That the service is there."""

    status: str
    version: str


def create_app(settings: Settings) -> FastAPI:
    """The application of a server with these settings.

    Routes find them as `request.app.state.settings`, and the database as `request.app.state.engine`.
    """
    app = FastAPI(
        title="Tocsin",
        version=__version__,
        description="Adversarial patches and anomaly scores over HTTP.",
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        responses=answers.problems(*answers.COMMON),
    )
    app.state.settings = settings
    app.add_middleware(answers.Failures)
    app.add_middleware(Gate, settings=settings)  # the last one added is the first that is passed
    answers.add_handlers(app)
    app.include_router(routes_page.router)
    app.include_router(routes_datasets.router)
    app.include_router(routes_patches.router, responses=answers.problems(404, 409, 422, 429))
    app.include_router(routes_models.router, responses=answers.problems(404, 406, 409, 415, 422))
    app.include_router(streams.router)

    @app.get("/health", tags=["service"])
    def health() -> Health:
        """Whether the service is there."""
        return Health(status="ok", version=__version__)

    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What the routes need while the server runs: the database, workers and loaded models."""
    settings: Settings = app.state.settings
    settings.folder.mkdir(parents=True, exist_ok=True)
    engine = app.state.engine = open_database(settings.database)
    try:
        tidy(engine, settings)
        async with (
            patch_workers(settings, engine) as app.state.patch_workers,
            scorers(settings) as app.state.models,
        ):
            yield
    finally:
        engine.dispose()
