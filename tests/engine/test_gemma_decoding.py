"""Gemma in a batch, as its own draft, and with a quantized cache, all on one copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from backend.catalog import resolve
from backend.engine.batch.engine import BatchEngine
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.text import encode
from backend.recipe.race import Sampling
from backend.recipe.serving import Limits
from backend.recipe.switches.draft import SelfDraft
from backend.recipe.switches.quantized_cache import QuantizedCache
from backend.serving.request import Request
from backend.techniques.base import DecodePlan, Subject, cache_bytes
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text

pytestmark = pytest.mark.real

PROMPTS = (
    "The history of the lighthouse begins on a small island where a family of fishermen",
    "apples, pears, plums, apples, pears, plums, apples,",
    "Once upon a time there was a miller who had three sons.",
)


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path) -> Subject:
    ref = resolve(str(gemma_folder))
    subject = load(ref)
    subject.sample_ids = encode(subject, held_out_text(ref).text[:2000])[:216]
    return subject


@pytest.fixture
def fresh(gemma: Subject) -> Iterator[Subject]:
    """The same live model with nothing planned."""
    gemma.plan = DecodePlan()
    yield gemma
    gemma.plan = DecodePlan()


def written(subject: Subject, ids: list[int], count: int) -> tuple[list[int], Decoder]:
    decoder = Decoder(subject, Sampling(), 1)
    decoder.start(ids, count)
    while len(decoder.ids) < len(ids) + count:
        decoder.step()
    return decoder.ids[len(ids) :], decoder


def test_two_slots_answer_three_requests_as_alone(fresh: Subject) -> None:
    requests = [Request(at, tuple(encode(fresh, text)), 10) for at, text in enumerate(PROMPTS)]
    fresh.longest = 64
    engine = BatchEngine(fresh, Limits(slots=2, chunk_tokens=8))
    for one in requests:
        engine.submit(one)
    answers: dict[int, list[int]] = {one.id: [] for one in requests}
    while not engine.idle:
        for told in engine.step():
            answers[told.id] += [] if told.token is None else [told.token]
    assert answers == {one.id: written(fresh, list(one.prompt), 10)[0] for one in requests}


def test_some_of_its_layers_guess_and_the_text_stays(fresh: Subject) -> None:
    ids = encode(fresh, PROMPTS[1])
    expected, _ = written(fresh, ids, 16)
    switch = SelfDraft(keep=14, which="nearest")
    apply_switch(fresh, switch)
    found, decoder = written(fresh, ids, 16)
    assert found == expected
    assert decoder.speculation.accepted > 0
    assert read_back(fresh, switch).facts["draft_weights_bytes"] == 0


def test_what_a_quantized_cache_loses_after_200_tokens(fresh: Subject) -> None:
    full = DynamicCache(config=fresh.model.config)
    expected = decoded(fresh, full)
    lost = {}
    for bits, held in ((8, 0.6), (4, 0.5)):  # of the bytes; the newest tokens stay in full
        fresh.plan = DecodePlan()
        apply_switch(fresh, QuantizedCache(key_bits=bits, value_bits=bits))
        assert fresh.plan.make_cache
        packed = fresh.plan.make_cache(216)
        found = decoded(fresh, packed)
        lost[bits] = float((expected.exp() * (expected - found)).sum(-1).mean())
        assert cache_bytes(packed) < held * cache_bytes(full)
    assert 0 < lost[8] < 0.01
    assert lost[8] < lost[4] < 0.1


@torch.inference_mode()
def decoded(subject: Subject, cache: object) -> Tensor:
    """Log-probabilities (16, V) of the last tokens, one a call, after 200 in one call."""
    ids = torch.tensor([subject.sample_ids])
    subject.model(input_ids=ids[:, :200], cache=cache, use_cache=True)
    rows = [
        subject.model(input_ids=ids[:, at : at + 1], cache=cache, use_cache=True).logits[0] for at in range(200, 216)
    ]
    return torch.cat(rows).log_softmax(-1)
