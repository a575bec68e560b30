"""A team behind HTTP: OpenAI-compatible endpoints over one engine thread (extra `serve`)."""

from latentmas.serve.app import create_app
from latentmas.serve.engine import Engine
from latentmas.serve.errors import RequestError
from latentmas.serve.server import open_socket, run_server
from latentmas.serve.settings import ServeSettings

__all__ = ["Engine", "RequestError", "ServeSettings", "create_app", "open_socket", "run_server"]
