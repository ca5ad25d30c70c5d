"""Errors in the API's own form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

INVALID, AUTHENTICATION, RATE_LIMIT, SERVER = (
    "invalid_request_error", "authentication_error", "rate_limit_error", "server_error",
)  # fmt: skip
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "greater_than_equal": "below_min_value",
    "greater_than": "below_min_value",
    "less_than_equal": "above_max_value",
    "too_long": "array_above_max_length",
    "too_short": "array_below_min_length",
    "json_invalid": "invalid_json",
}


class ApiError(Exception):
    """What a client gets instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers
        self.kind, self.param, self.code = kind, param, code

    def body(self) -> dict[str, Any]:
        """The object that goes over the wire."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> JSONResponse:
        """The whole response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def from_validation(error: ValidationError, unions: Mapping[str, str]) -> ApiError:
    """The first mistake that pydantic found, with its parameter.

    Args:
        unions: what may stand in a field of several kinds, in words: pydantic complains about each kind apart.
    """
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first['ctx']['error']}.", code="invalid_json")
    if not first["loc"]:
        return ApiError(400, "The body is not a JSON object.", code="invalid_type")
    param, wanted = _parameter(first["loc"], unions)
    kind = first["type"]
    if kind == "missing":
        return ApiError(400, f"{param} is missing.", param=param, code=_CODES[kind])
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    said = wanted or first["msg"].removeprefix("Input should be ").removeprefix("List should have ")
    message = f"{param} is {_short(first['input'])}; it should be {said}."
    return ApiError(400, message, param=param, code="invalid_value" if wanted else code)


def _parameter(place: tuple[int | str, ...], unions: Mapping[str, str]) -> tuple[str, str]:
    """The path as it is written in the API, 'messages[0].role', and what a union there may hold."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        bare = re.sub(r"\[\d+\]", "", path)
        if bare in unions:
            return path, unions[bare]
    return path, ""


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) < 80 else shown[:77] + "..."
