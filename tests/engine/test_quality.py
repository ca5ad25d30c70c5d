"""Scores against a reference that holds everything at once."""

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from backend.engine.quality import Shadow, compare, prompt_logits, prompt_rows, window_loss, windows
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
