"""Every precision on a real model, scored one token a call as it decodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import read_switch
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch, read_back

pytestmark = pytest.mark.real

TEXT = "Once upon a time there was a miller who had three sons, a mill, a donkey and a cat. When the miller died, the"
PROMPT = 8  # tokens in one call; each of the others in a call of its own

# switch, fields, what the summary says, bounds of the mean KLD against fp32
CASES: list[tuple[str, dict[str, Any], str, float, float]] = [
    ("cast", {}, "100% of the weights bfloat16", 0.0, 0.01),
    ("int8_weight_only", {}, "126 of 127 linear layers int8, head int8", 0.0, 0.02),
    ("int8_dynamic", {}, "126 of 127 linear layers qint8, head qint8", 0.02, 1.0),
    ("int4_weight_only", {}, "126 of 127 linear layers int4, head int8", 0.02, 1.0),
    ("bnb_int8", {}, "126 of 127 linear layers int8, head float32", 0.0, 0.1),
    ("bnb_4bit", {}, "126 of 127 linear layers nf4, head float32", 0.02, 1.0),
]


@pytest.fixture(scope="module")
def tokens(gemma_folder: Path) -> Tensor:
    ids: Tensor = AutoTokenizer.from_pretrained(gemma_folder)(TEXT, return_tensors="pt").input_ids
    return ids  # (1, T)


@pytest.fixture(scope="module")
def load(gemma_folder: Path) -> Callable[[], PreTrainedModel]:
    def fresh() -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(gemma_folder, dtype=torch.float32).eval()

    return fresh


@pytest.fixture(scope="module")
def reference(load: Callable[[], PreTrainedModel], tokens: Tensor) -> Tensor:
    return decoded(load(), tokens)


def decoded(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Log-probabilities (T - PROMPT, V) after each token that was fed alone."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(tokens[:, :PROMPT], past_key_values=cache, use_cache=True)
        steps = [
            model(tokens[:, i : i + 1], past_key_values=cache, use_cache=True) for i in range(PROMPT, tokens.shape[1])
        ]
    return torch.stack([step.logits[0, -1].float().log_softmax(-1) for step in steps])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "fields", "summary", "least", "most"), CASES, ids=[case[0] for case in CASES])
def test_gemma_shrinks_and_keeps_what_it_can(
    load: Callable[[], PreTrainedModel],
    tokens: Tensor,
    reference: Tensor,
    kind: str,
    fields: dict[str, Any],
    summary: str,
    least: float,
    most: float,
) -> None:
    model = load()
    before = weight_bytes(model)
    facts = ModelFacts("gemma", "gemma3_text", 18, 640, 2048, 4, 1, 256, 262144, 32768, 268_098_176, 167_772_160)
    subject, switch = Subject(model, None, facts, torch.device("cpu")), read_switch(kind, fields)
    apply_switch(subject, switch)
    effect = read_back(subject, switch)
    assert effect.summary == summary
    assert weight_bytes(model) < 0.9 * before
    got = decoded(model, tokens)
    kld = (reference.exp() * (reference - got)).sum(-1).mean().item()
    assert least < kld < most
