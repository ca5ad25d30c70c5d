"""The application: addresses, and errors in one form wherever they arise."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backend.server.bridge import Bridge
from backend.server.endpoint import Endpoint
from backend.server.errors import SERVER, ApiError
from backend.server.guard import Guard
from backend.server.instruments import Instruments
from backend.server.settings import Settings
from backend.server.wire import HungUp

NOBODY = 499  # the client is gone; only the metrics see it
Handler = Callable[[Request], Awaitable[Response]]
log = logging.getLogger("headway.server")


def build(settings: Settings, bridge: Bridge, instruments: Instruments, fingerprint: str) -> Starlette:
    """The application of one model."""
    endpoint, about = Endpoint(settings, bridge, instruments, fingerprint), About(settings, bridge, instruments)

    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(path, _counted(handler, path, instruments), methods=[method])

    routes = [
        route("/health", about.health, "GET"),
        route("/metrics", about.metrics, "GET"),
        route("/v1/models", about.models, "GET"),
        route("/v1/models/{name:path}", about.model, "GET"),
        route("/v1/completions", endpoint.completions, "POST"),
        route("/v1/chat/completions", endpoint.chat, "POST"),
    ]
    handlers = {HTTPException: _elsewhere, Exception: _fault}
    return Starlette(routes=routes, middleware=[Middleware(Guard, settings=settings)], exception_handlers=handlers)


class About:
    """What the server says of itself and its model."""

    def __init__(self, settings: Settings, bridge: Bridge, instruments: Instruments) -> None:
        self._settings, self._bridge, self._instruments = settings, bridge, instruments
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        """Whether it answers: 200, or 503 with the reason."""
        state = "stopping" if self._bridge.closing else self._bridge.state
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return PlainTextResponse(self._instruments.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        name = request.path_params["name"]
        if name != self._settings.model:
            message = f"There is no model {name!r} here; this server has {self._settings.model!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, object]:
        told: dict[str, object] = {"id": self._settings.model, "object": "model"}
        told |= {"created": self._created, "owned_by": "headway"}
        if ready := self._bridge.ready:
            told |= {"max_model_len": ready.context, "recipe": ready.label, "engine": ready.engine}
            told |= {"chat": ready.chats}
        return told


def _counted(handler: Handler, path: str, instruments: Instruments) -> Handler:
    """The handler with its mistakes as responses, and every response counted."""

    async def handle(request: Request) -> Response:
        try:
            response = await handler(request)
        except ApiError as error:
            response = error.response()
        except HungUp:
            response = Response(status_code=NOBODY)
        instruments.responses.add(path=path, status=str(response.status_code))
        return response

    return handle


async def _elsewhere(request: Request, error: Exception) -> Response:
    """An address or a method that there is none of."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    what = {404: f"There is nothing at {request.url.path}.", 405: f"{request.method} is not possible here."}
    return ApiError(status, what.get(status, str(error)), code="not_found" if status == 404 else None).response()


async def _fault(request: Request, error: Exception) -> Response:
    """A fault of this server; what it was stands in its log."""
    log.error("a fault at %s", request.url.path, exc_info=error)
    return ApiError(500, "This server made a mistake; its log says which.", kind=SERVER, code="fault").response()
