"""Who may ask: the bearer token, and the names by which a server of this machine may be called."""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.server.errors import AUTHENTICATION, ApiError
from backend.server.settings import Settings

OPEN = ("/health",)
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """Turns away whoever may not ask, before anything of the request is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        key = settings.api_key
        self._digest = None if key is None else _digest(key.get_secret_value())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        # A page from anywhere can make its own host name mean this machine, and then ask as if it came from here.
        host = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else "[::1]"
        if self._settings.is_local and host.lower() not in (*LOCAL_NAMES, self._settings.host):
            message = f"This server answers to {', '.join(LOCAL_NAMES)} only; start it with --host for others."
            raise ApiError(403, message, code="unknown_host")
        if self._digest is None or scope["path"] in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Digests have one length, and their comparison takes one time: neither tells anything of the key.
        right = hmac.compare_digest(_digest(given.strip()), self._digest)
        if scheme.lower() != "bearer" or not right:
            message = "Send this server's key in the header Authorization: Bearer KEY."
            challenge = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, message, kind=AUTHENTICATION, code="invalid_api_key", headers=challenge)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
