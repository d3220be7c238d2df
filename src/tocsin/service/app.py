"""The application: which routes there are, and what every request passes on its way to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tocsin import __version__
from tocsin.service import routes_models, streams
from tocsin.service.loaded_models import scorers
from tocsin.service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application of a server with these settings, which routes find as `request.app.state.settings`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with scorers(settings) as models:
            app.state.models = models
            yield

    app = FastAPI(title="Tocsin", version=__version__, lifespan=lifespan)
    app.state.settings = settings
    app.include_router(routes_models.router)
    app.include_router(streams.router)
    app.add_exception_handler(HTTPException, _one_line)  # type: ignore[arg-type]

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the service is there."""
        return {"status": "ok", "version": __version__}

    return app


async def _one_line(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code)
