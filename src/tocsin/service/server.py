"""Starts the service: settings, database, workers, and the web server around the application."""

from omegaconf import DictConfig, OmegaConf

from tocsin.service.settings import Settings, settings_of

SOCKET_MESSAGE = 1 << 20  # bytes; a row of a stream is far shorter
PATIENCE_S = 10  # for open connections, such as those that listen to events, when the server ends


def serve(cfg: DictConfig) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: A setting is none that can be used.
    """
    run(settings_of(OmegaConf.to_container(cfg, resolve=True)))  # type: ignore[arg-type]


def run(settings: Settings) -> None:
    """Serve with these settings.

    Raises:
        ConfigError: The URL of the database is none that can be used.
        DataError: The database does not answer.
    """
    import uvicorn

    from tocsin.service.app import create_app
    from tocsin.service.database import open_database

    open_database(
        settings.database
    ).dispose()  # a fault in it ends the command in one line, not the application
    # No pings: the answer to one waits behind the rows that a busy stream has sent ahead, and would come too late.
    # Streams that are silent, or whose answers nobody takes, end after limits.idle_s.
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        server_header=False,
        ws_max_size=SOCKET_MESSAGE,
        ws_ping_interval=None,
        timeout_graceful_shutdown=PATIENCE_S,
    )
