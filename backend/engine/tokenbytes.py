"""The bytes of single tokens: a token may hold a part of a character only, and then has no text of its own."""

from __future__ import annotations

import json
import re
from typing import Any

from backend.engine.text import decode
from backend.techniques.base import Subject

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece names its 256 byte tokens


class TokenBytes:
    """Looks up the bytes of a token, once each."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[int, bytes] = {}
        self._letters = _byte_letters() if _is_byte_level(subject.tokenizer) else {}

    def of(self, token: int) -> bytes:
        """The token's bytes; of one that is no text the UTF-8 of its name."""
        if token not in self._known:
            self._known[token] = self._look_up(token)
        return self._known[token]

    def _look_up(self, token: int) -> bytes:
        tokenizer = self._subject.tokenizer
        name = None if tokenizer is None else tokenizer.convert_ids_to_tokens(token)
        if not isinstance(name, str):
            return decode(self._subject, [token]).encode()
        if found := _BYTE.fullmatch(name):
            return bytes([int(found[1], 16)])
        if self._letters:
            letters = [self._letters.get(letter) for letter in name]
            if None not in letters and token not in self._special:
                return bytes(byte for byte in letters if byte is not None)
            return name.encode()
        # A decoder of words strips the space before the first of them; the mark in the name says whether one is there.
        return name.replace("\u2581", " ").encode()

    @property
    def _special(self) -> set[int]:
        return set(self._subject.tokenizer.all_special_ids) if self._subject.tokenizer else set()


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    return "ByteLevel" in [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", []))]


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level tokenizers (GPT-2's and its heirs) write for each byte.

    Printable Latin-1 stands for itself; the other bytes, in order, are the letters from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
