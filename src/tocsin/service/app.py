"""The application: which routes there are, and what every request passes on its way to them."""

from fastapi import FastAPI

from tocsin import __version__
from tocsin.service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application of a server with these settings, which routes find as `request.app.state.settings`."""
    app = FastAPI(title="Tocsin", version=__version__)
    app.state.settings = settings

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the service is there."""
        return {"status": "ok", "version": __version__}

    return app
