"""Scores against a reference that holds everything at once."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from backend.engine.quality import Shadow, compare, finds, prompt_logits, prompt_rows, window_loss, windows
from backend.engine.worst import CONTEXT, KEPT, Row, Worst
from backend.recipe.facts import ModelFacts
from backend.techniques.base import Subject


def subject(seed: int) -> Subject:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128,
    )  # fmt: skip
    facts = ModelFacts("tiny", "llama", 2, 32, 64, 4, 4, 8, 48, 128, 0, 0)
    return Subject(LlamaForCausalLM(config).eval(), None, facts, torch.device("cpu"))


def test_compare_equals_torchs_kl_div():
    torch.manual_seed(0)
    base, ours = torch.randn(5, 48).log_softmax(-1), torch.randn(5, 48)
    scores = compare(base, ours, [1, 2, 3, 4, 5])
    expected = F.kl_div(ours.log_softmax(-1), base, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(torch.tensor(scores["kld"]), expected, atol=1e-6)
    assert scores["top1"] == (base.argmax(-1) == ours.argmax(-1)).int().tolist()
    assert scores["delta_logp"][0] == (ours.log_softmax(-1)[0, 1] - base[0, 1]).item()


def test_a_model_against_itself_scores_nothing():
    one = subject(0)
    prompt, tokens = [1, 2, 3, 4], [5, 6, 7]
    with torch.inference_mode():
        rows = one.model(torch.tensor([prompt + tokens])).logits[0, 3:6].log_softmax(-1)
    scores = Shadow(one, prompt, 8).score(rows, tokens)
    assert max(scores["kld"]) < 1e-6
    assert scores["top1"] == [1, 1, 1]


def test_shadow_in_parts_equals_one_call_over_all():
    base, ours = subject(0), subject(1)
    prompt, tokens = [1, 2, 3, 4], [9, 8, 7, 6, 5, 4, 3]
    with torch.inference_mode():
        whole = torch.tensor([prompt + tokens])
        rows = base.model(whole).logits[0, 3:10].log_softmax(-1)
        expected = compare(rows, ours.model(whole).logits[0, 3:10], tokens)
    shadow = Shadow(ours, prompt, 16)
    first, second = shadow.score(rows[:4], tokens[:4]), shadow.score(rows[4:], tokens[4:])
    found = torch.tensor(first["kld"] + second["kld"])
    assert torch.allclose(found, torch.tensor(expected["kld"]), atol=1e-5)
    assert shadow.kv_bytes == 2 * 2 * 4 * 8 * 4 * (len(prompt) + len(tokens))


def test_prompt_logits_are_those_of_prefill():
    one = subject(0)
    prompt = list(range(20))
    logits = prompt_logits(one, prompt)
    with torch.inference_mode():
        expected = one.model(torch.tensor([prompt])).logits[0, :-1]
    assert torch.allclose(logits, expected, atol=1e-6)
    assert prompt_rows(10_000, 262_144) == 256  # a quarter of a gigabyte and no more


def test_window_loss_is_cross_entropy():
    one = subject(0)
    ids = [i % 48 for i in range(90)]
    total, count = window_loss(one, ids)
    with torch.inference_mode():
        logits = one.model(torch.tensor([ids])).logits[0, :-1]
    assert count == 89
    assert abs(total - F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()) < 1e-3


def test_windows_cover_what_was_asked_and_no_more():
    assert [len(w) for w in windows(list(range(1000)), 600)] == [256, 256]
    assert list(windows(list(range(100)), 600)) == []


def test_every_window_begins_with_the_token_that_opens_texts() -> None:
    found = list(windows(list(range(1000)), 600, [0]))
    assert [w[:2] for w in found] == [[0, 1], [0, 256]]
    assert {len(w) for w in found} == {256}
    assert next(windows(list(range(5, 1000)), 300, [0]))[:2] == [0, 5]  # a text whose opening was left out


def test_top5_and_the_worst_token_by_hand():
    base = torch.tensor([[0.4, 0.2, 0.15, 0.1, 0.08, 0.07], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]).log()
    ours = torch.tensor([[0.07, 0.2, 0.15, 0.1, 0.08, 0.4], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]).log()
    worst = Worst([7, 8], place=0)
    scores = compare(base, ours, [0, 3], worst)
    assert scores["top5"][0] == pytest.approx(0.8)  # token 0 fell out of the five
    assert scores["top1"] == [0, 1]
    first, second = worst.spots
    assert (first.place, first.before, first.token) == (0, (7, 8), 0)
    assert first.kld == pytest.approx(0.4 * math.log(0.4 / 0.07) + 0.07 * math.log(0.07 / 0.4), rel=1e-4)
    assert (first.base_p, first.variant_p) == (pytest.approx(0.4), pytest.approx(0.07))
    assert [token for token, _ in first.base] == [0, 1, 2, 3, 4]
    assert [token for token, _ in first.variant] == [5, 1, 2, 3, 4]
    assert [p for _, p in first.variant] == pytest.approx([0.4, 0.2, 0.15, 0.1, 0.08])
    assert (second.place, second.before, second.kld) == (1, (7, 8, 0), pytest.approx(0, abs=1e-6))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60))
def test_the_worst_are_the_highest_in_order(values):
    worst, nothing = Worst(list(range(30)), place=5), torch.zeros(())
    empty = (torch.zeros(0), torch.zeros(0))
    for token, kld in enumerate(values):
        worst.note(token, Row(kld, nothing, nothing, empty, empty))
    assert [spot.kld for spot in worst.spots] == sorted(values, reverse=True)[:KEPT]
    assert all(spot.kld == values[spot.place - 5] for spot in worst.spots)
    assert all(len(spot.before) == CONTEXT for spot in worst.spots)


def test_the_shadow_keeps_its_worst_tokens_across_slices():
    base, ours = subject(0), subject(1)
    prompt, tokens = [1, 2, 3, 4], [9, 8, 7, 6, 5, 4, 3]
    with torch.inference_mode():
        rows = base.model(torch.tensor([prompt + tokens])).logits[0, 3:10].log_softmax(-1)
    shadow, worst = Shadow(ours, prompt, 16), Worst(prompt, place=0)
    klds = shadow.score(rows[:4], tokens[:4], worst)["kld"] + shadow.score(rows[4:], tokens[4:], worst)["kld"]
    spot = worst.spots[0]
    assert spot.kld == max(klds) == klds[spot.place]
    assert spot.token == tokens[spot.place]
    assert list(spot.before) == (prompt + tokens[: spot.place])[-CONTEXT:]


def test_greedy_completion_is_found_and_nothing_else():
    one = subject(0)
    with torch.inference_mode():
        written = one.model.generate(torch.tensor([[1, 2, 3, 4]]), max_new_tokens=3, do_sample=False, eos_token_id=None)
    wanted = written[0, 4:].tolist()
    assert finds(one, [1, 2, 3, 4], wanted)
    assert not finds(one, [1, 2, 3, 4], [*wanted[:2], (wanted[2] + 1) % 48])
