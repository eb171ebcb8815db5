"""The worker class of docs/servers.md, with a short timeout and a root path."""

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = UvicornWorker.CONFIG_KWARGS | {
        "timeout_graceful_shutdown": 1,
        "root_path": "/app",
    }
