"""Many clients at once, of which some hang up in the middle of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from benchmarks._served import Served

HANGS_UP = 3  # every third


@dataclass
class Tally:
    """What came of the requests."""

    right: int = 0
    hung_up: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class Swarm:
    """Asks one server; an answer is right when it is the one that the server gave when it was asked alone."""

    def __init__(self, served: Served, model: str, prompts: list[str], tokens: int, long: int) -> None:
        """`tokens` are those of an answer that is waited for, `long` those of one that is not."""
        self._served, self._model, self._tokens, self._long = served, model, tokens, long
        self._prompts = prompts
        self.tally = Tally()
        client = served.client()
        self._alone = [client.completions.create(**self._ask(place)).choices[0].text for place in range(len(prompts))]

    def _ask(self, number: int, tokens: int = 0) -> dict[str, Any]:
        place = number % len(self._prompts)
        told = {"model": self._model, "prompt": self._prompts[place], "max_tokens": tokens or self._tokens + place}
        return told | {"temperature": 0.0}

    def run(self, requests: int, clients: int, each: Callable[[int], None] = lambda done: None) -> None:
        """Let `clients` ask until `requests` are done; `each` hears how many are."""
        asyncio.run(self._run(requests, clients, each))

    async def _run(self, requests: int, clients: int, each: Callable[[int], None]) -> None:
        numbers = iter(range(requests))
        async with AsyncOpenAI(base_url=self._served.url, api_key="none", max_retries=0, timeout=120) as client:

            async def one_client() -> None:
                for number in numbers:
                    await self._one(client, number)
                    await asyncio.to_thread(each, number + 1)

            await asyncio.gather(*(one_client() for _ in range(clients)))

    async def _one(self, client: AsyncOpenAI, number: int) -> None:
        began = time.perf_counter()
        if number % HANGS_UP == 0:
            await self._hang_up(client, number)
            return
        streams = number % 2 == 0
        got = await (self._streamed(client, number) if streams else self._whole(client, number))
        self.tally.slowest_s = max(self.tally.slowest_s, time.perf_counter() - began)
        if got == self._alone[number % len(self._prompts)]:
            self.tally.right += 1
        else:
            self.tally.wrong.append(got)

    async def _hang_up(self, client: AsyncOpenAI, number: int) -> None:
        """Leave after a few pieces, of a text that is far from its end."""
        asked = self._ask(number, self._long)
        stream = await client.completions.create(**asked, stream=True, extra_body={"ignore_eos": True})
        left = number % 5 + 1
        async for _ in stream:
            left -= 1
            if not left:
                break
        await stream.close()
        self.tally.hung_up += 1

    async def _streamed(self, client: AsyncOpenAI, number: int) -> str:
        stream = await client.completions.create(**self._ask(number), stream=True)
        return "".join([piece.choices[0].text async for piece in stream])

    async def _whole(self, client: AsyncOpenAI, number: int) -> str:
        return str((await client.completions.create(**self._ask(number))).choices[0].text)
