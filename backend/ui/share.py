"""A whole race, or serving, in one URL parameter: JSON, deflated, in the URL-safe alphabet."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

from backend.recipe.base import Config, RecipeError
from backend.recipe.race import Race

MAX_LINK = 8_000  # characters; servers and mail programs cut longer addresses
MAX_BYTES = 2_000_000  # of the JSON inside: a short link must not unfold into all memory


def pack(race: Config) -> str:
    """The race, or whatever else is asked for, as URL text; only what differs from the defaults is written."""
    plain = json.dumps(race.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(plain.encode(), 9)).decode().rstrip("=")


def unpack(text: str) -> Race:
    """The race that `pack` wrote.

    Raises:
        RecipeError: for text that is no race, or a race that does not validate.
    """
    return Race.read(unfold(text), where="race")


def unfold(text: str) -> Any:
    """The data that `pack` wrote, not yet validated.

    Raises:
        RecipeError: for text that is no such link.
    """
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        stream = zlib.decompressobj()
        plain = stream.decompress(packed, MAX_BYTES)
        if stream.unconsumed_tail or not stream.eof:
            raise ValueError("cut off or too long")
        return json.loads(plain)
    except (binascii.Error, zlib.error, ValueError):  # ValueError holds JSON's and UTF-8's mistakes
        raise RecipeError("race", text[:40], "a link that Share made", "Copy the whole link again.") from None
