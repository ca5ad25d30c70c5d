"""A whole race in one URL parameter: JSON, deflated, in the URL-safe alphabet."""

from __future__ import annotations

import base64
import binascii
import json
import zlib

from backend.recipe.base import RecipeError
from backend.recipe.race import Race

MAX_LINK = 8_000  # characters; servers and mail programs cut longer addresses
MAX_BYTES = 2_000_000  # of the JSON inside: a short link must not unfold into all memory


def pack(race: Race) -> str:
    """The race as URL text; only what differs from the defaults is written."""
    plain = json.dumps(race.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(plain.encode(), 9)).decode().rstrip("=")


def unpack(text: str) -> Race:
    """The race that `pack` wrote.

    Raises:
        RecipeError: for text that is no race, or a race that does not validate.
    """
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        unfold = zlib.decompressobj()
        plain = unfold.decompress(packed, MAX_BYTES)
        if unfold.unconsumed_tail or not unfold.eof:
            raise ValueError("cut off or too long")
        data = json.loads(plain)
    except (binascii.Error, zlib.error, ValueError):  # ValueError holds JSON's and UTF-8's mistakes
        raise RecipeError("race", text[:40], "a link that Share made", "Copy the whole link again.") from None
    return Race.read(data, where="race")
