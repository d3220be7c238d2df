"""The application: which routes there are, and what every request passes on its way to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine

from tocsin import __version__
from tocsin.data.catalog_tables import Base
from tocsin.service.job_table import JobBase
from tocsin.service.routes_patches import router as patches
from tocsin.service.settings import Settings
from tocsin.service.workers import patch_workers


def create_app(settings: Settings) -> FastAPI:
    """The application of a server with these settings, which routes find as `request.app.state.settings`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = create_engine(settings.database)
        Base.metadata.create_all(app.state.engine)
        JobBase.metadata.create_all(app.state.engine)
        async with patch_workers(settings, app.state.engine) as app.state.patch_workers:
            yield
        app.state.engine.dispose()

    app = FastAPI(title="Tocsin", version=__version__, lifespan=lifespan)
    app.state.settings = settings
    app.include_router(patches)

    @app.exception_handler(HTTPException)
    def refuse(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the service is there."""
        return {"status": "ok", "version": __version__}

    return app
