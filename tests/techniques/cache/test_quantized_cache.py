"""The quantized cache: codes by hand, blocks packed once, bytes that are really held, and what cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.quantized_cache import QuantizedCache
from backend.techniques.base import Subject, cache_bytes
from backend.techniques.cache.packing import fold, pack_keys, pack_values, unfold, unpack_keys, unpack_values
from backend.techniques.cache.quantized import PackedLayer
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
BITS = [8, 4, 2]


def switch(bits: int = 4, **fields: Any) -> QuantizedCache:
    return QuantizedCache.read({"key_bits": bits, "value_bits": bits, "group_size": 8, "recent": 4, **fields})


def packed_cache(subject: Subject, asked: QuantizedCache) -> Cache:
    apply_switch(subject, asked)
    assert subject.plan.make_cache
    return subject.plan.make_cache(64)


@torch.inference_mode()
def decode(subject: Subject, cache: Cache, tokens: int = 64, at_once: int = 1) -> Tensor:
    """Logits (T, V)."""
    ids = torch.tensor([subject.sample_ids[:tokens]])
    calls = [subject.model(input_ids=part, cache=cache, use_cache=True) for part in ids.split(at_once, dim=1)]
    return torch.cat([call.logits[0] for call in calls])


@pytest.mark.parametrize("bits", BITS)
def test_codes_fold_into_bytes_and_back(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (2, 3, 5, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    folded = fold(codes, bits)
    assert folded.shape[-1] == 16 * bits // 8
    assert torch.equal(unfold(folded, bits), codes)


def test_four_numbers_by_hand() -> None:
    # In 2 bits the levels between 0 and 6 are 0, 2, 4 and 6, whether they share a channel or a token.
    keys = torch.tensor([0.0, 1.0, 2.0, 6.0]).view(1, 1, 4, 1).expand(1, 1, 4, 4)
    packed = pack_keys(keys, 2, 4)
    torch.testing.assert_close(packed.step[0, 0, 0, 0].float(), torch.tensor(2.0), rtol=2e-3, atol=0)
    codes = unfold(packed.codes, 2)[0, 0, :, 0].tolist()
    assert codes in ([0, 0, 1, 3], [0, 1, 1, 3])  # 1 is halfway, and the stored step is a hair above 2
    values = torch.tensor([0.0, 1.0, 2.0, 6.0]).view(1, 1, 1, 4)
    again = unpack_values(pack_values(values, 2, 4), 2, 4, torch.float32)
    assert (again - values).abs().max() <= 1.01


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_no_number_is_off_by_more_than_half_a_step(bits: int, offset: float) -> None:
    states = torch.randn(2, 3, 64, 16, generator=torch.Generator().manual_seed(2)) + offset
    states[..., 3] *= 40  # a channel of outliers, as keys have them
    keys, values = pack_keys(states, bits, 32), pack_values(states, bits, 8)
    step = keys.step.float().repeat_interleave(32, dim=2)
    assert ((unpack_keys(keys, bits, 32, torch.float32) - states).abs() <= step / 2 + 1e-4).all()
    step = values.step.float().repeat_interleave(8, dim=3)
    assert ((unpack_values(values, bits, 8, torch.float32) - states).abs() <= step / 2 + 1e-4).all()


def test_channels_of_outliers_cost_keys_by_channel_less() -> None:
    states = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    states[..., 5] *= 100
    by_channel = unpack_keys(pack_keys(states, 4, 32), 4, 32, torch.float32) - states
    by_token = unpack_values(pack_values(states, 4, 32), 4, 32, torch.float32) - states
    others = torch.arange(32) != 5
    assert by_channel[..., others].abs().mean() < by_token[..., others].abs().mean() / 5


def test_groups_of_equal_numbers_come_back() -> None:
    states = torch.full((1, 1, 8, 8), 0.5)
    torch.testing.assert_close(unpack_keys(pack_keys(states, 2, 8), 2, 8, torch.float32), states, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_unchanged_while_all_tokens_are_recent(any_subject: Subject, kernel: str) -> None:
    any_subject.model.set_attn_implementation(kernel)
    dynamic = decode(any_subject, DynamicCache(config=any_subject.model.config))
    ours = decode(any_subject, packed_cache(any_subject, switch(2)))
    torch.testing.assert_close(ours[:12], dynamic[:12], atol=1e-4, rtol=1e-4)
    assert (ours[13:] - dynamic[13:]).abs().max() > 1e-3


def test_fewer_bits_are_further_off(any_subject: Subject) -> None:
    dynamic = decode(any_subject, DynamicCache(config=any_subject.model.config))
    off = [(decode(any_subject, packed_cache(any_subject, switch(bits))) - dynamic).abs().mean() for bits in BITS]
    assert off[0] < off[1] < off[2]
    assert off[0] < 0.01


@torch.inference_mode()
def test_equals_attention_over_codes_unpacked_by_hand(tiny_llama: Subject) -> None:
    """A reference that holds everything in full, and replaces a block by what its codes tell once it is packed."""
    ours = decode(tiny_llama, packed_cache(tiny_llama, switch(4)), 30)
    plain, rows, blocks = DynamicCache(config=tiny_llama.model.config), [], 0
    for place in range(30):
        rows.append(decode_at(tiny_llama, plain, place))
        if (place + 1 - 4) // 8 > blocks:
            part, blocks = slice(8 * blocks, 8 * blocks + 8), blocks + 1
            for layer in plain.layers:
                layer.keys[:, :, part] = unpack_keys(pack_keys(layer.keys[:, :, part], 4, 8), 4, 8, torch.float32)
                values = pack_values(layer.values[:, :, part], 4, 8)
                layer.values[:, :, part] = unpack_values(values, 4, 8, torch.float32)
    assert blocks == 3
    torch.testing.assert_close(ours, torch.stack(rows), atol=1e-4, rtol=1e-4)


def decode_at(subject: Subject, cache: Cache, place: int) -> Tensor:
    ids = torch.tensor([subject.sample_ids[place : place + 1]])
    return subject.model(input_ids=ids, cache=cache, use_cache=True).logits[0, -1]


def test_a_prompt_is_read_in_full_and_packed_afterwards(
    any_subject: Subject, logits: Callable[[Subject], Tensor]
) -> None:
    cache = packed_cache(any_subject, switch(2))
    torch.testing.assert_close(decode(any_subject, cache, at_once=64), logits(any_subject), atol=1e-4, rtol=1e-4)
    assert cache.layers[-1].keys.shape[2] < 4 + 8
    assert cache.get_seq_length() == 64


def test_gemmas_windows_drop_packed_blocks(tiny_gemma: Subject) -> None:
    cache = packed_cache(tiny_gemma, switch(8))
    dynamic = decode(tiny_gemma, DynamicCache(config=tiny_gemma.model.config))
    torch.testing.assert_close(decode(tiny_gemma, cache), dynamic, atol=0.05, rtol=0.05)
    first, last = cache.layers[0], cache.layers[2]
    assert 15 <= first.packed["keys"].codes.shape[2] + first.keys.shape[2] < 15 + 2 * 8
    assert last.packed["keys"].codes.shape[2] + last.keys.shape[2] == 64


@pytest.mark.parametrize(("bits", "codes", "scales"), [(8, 16, 8), (4, 8, 8), (2, 4, 8)])
def test_bytes_are_counted_by_hand(tiny_llama: Subject, bits: int, codes: int, scales: int) -> None:
    # A token of a head holds 16 numbers a side: 16 * bits / 8 bytes; 4 bytes of scale for 8 of them.
    cache = packed_cache(tiny_llama, switch(bits))
    decode(tiny_llama, cache, 64, at_once=64)
    packed, full = 56, 8
    assert cache_bytes(cache) == 2 * 3 * 4 * (packed * (codes + scales) + full * 16 * 4)
    effect = read_back(tiny_llama, switch(bits))
    assert effect.took_effect
    assert effect.facts["codes_per_token"] == 2 * 3 * 4 * codes
    assert effect.facts["scales_per_token"] == 2 * 3 * 4 * scales


def test_packing_is_seen_only_where_it_happens(any_subject: Subject) -> None:
    assert not read_back(any_subject, switch()).took_effect
    apply_switch(any_subject, switch())
    assert read_back(any_subject, switch()).took_effect
    assert not read_back(any_subject, switch(8)).took_effect


def test_cropping_reaches_the_recent_tokens_only(tiny_llama: Subject) -> None:
    cache = packed_cache(tiny_llama, switch())
    decode(tiny_llama, cache, 30)
    cache.crop(-3)
    assert cache.get_seq_length() == 27
    with pytest.raises(RuntimeError, match="packed"):
        cache.crop(-20)


def test_rows_of_a_batch_can_be_chosen(tiny_llama: Subject) -> None:
    cache = packed_cache(tiny_llama, switch())
    with torch.inference_mode():
        tiny_llama.model(input_ids=torch.tensor([tiny_llama.sample_ids[:30]] * 2), cache=cache, use_cache=True)
    cache.reorder_cache(torch.tensor([1]))
    assert {tensor.shape[0] for layer in cache.layers for tensor in layer.states} == {1}
    cache.batch_repeat_interleave(3)
    assert {tensor.shape[0] for layer in cache.layers for tensor in layer.states} == {3}
    cache.reset()
    assert cache.get_seq_length() == 0
    assert isinstance(cache.layers[0], PackedLayer)
    assert not cache.layers[0].packed


@pytest.mark.parametrize(
    ("head_dim", "fields", "allowed"),
    [(6, {"key_bits": 2}, "8, 4"), (20, {"group_size": 16}, "10, 20"), (2, {"value_bits": 2}, "8, 4")],
)
def test_head_sizes_that_do_not_fit_are_refused(
    build: Build, head_dim: int, fields: dict[str, Any], allowed: str
) -> None:
    subject = build("llama", head_dim=head_dim)
    with pytest.raises(RecipeError, match=allowed):
        apply_switch(subject, QuantizedCache.read(fields))
    assert allowed in (QuantizedCache.read(fields).unfit(subject.facts) or "")


@pytest.mark.parametrize("other", [{"prompt_lookup": {}}, {"compile": {}}, {"static_cache": {}}])
def test_what_cannot_stand_beside_it(other: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="quantized_cache"):
        Recipe.read({"switches": {"quantized_cache": {}, **other}})


@pytest.mark.parametrize("fields", [{"key_bits": 3}, {"group_size": 0}, {"recent": -1}])
def test_bad_fields_are_cards(fields: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        QuantizedCache.read(fields)
