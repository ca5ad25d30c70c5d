"""The student's own text: a share of the steps, the same for the same seed, drawn from the student itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.recipe.base import RecipeError
from backend.recipe.methods.on_policy import OnPolicy
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil, all_coaches
from backend.techniques.train.on_policy import OWN, written

COACH = all_coaches()[OnPolicy]


def pupil(subject: Subject, **fields: Any) -> Pupil:
    return Pupil(subject, subject, Training.read({"name": "x", "methods": {"on_policy": {}}} | fields))


def test_what_it_writes_is_what_it_finds_likely(any_subject: Subject) -> None:
    """Nearly cold it writes greedily, token by token with a cache as in one call without."""
    prompts = torch.tensor([any_subject.sample_ids[:6], any_subject.sample_ids[6:12]])
    torch.manual_seed(1)
    ids = written(any_subject, prompts, 24, 1e-6)
    assert torch.equal(ids[:, :6], prompts)
    with torch.no_grad():
        likely = any_subject.model(input_ids=ids, use_cache=False).logits[:, 5:-1].argmax(-1)
    assert torch.equal(ids[:, 6:], likely)


def test_a_step_draws_the_same_again_and_another_step_another(tiny_llama: Subject) -> None:
    prompts = torch.tensor([tiny_llama.sample_ids[:4]])
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        found.append(written(tiny_llama, prompts, 20, 2.0).tolist())
    assert found[0] == found[1] != found[2]


def test_it_writes_in_its_share_of_the_steps_and_says_so(tiny_llama: Subject) -> None:
    one, method = pupil(tiny_llama), OnPolicy(share=0.3, prompt=0.5)
    ids = torch.randint(1, 200, (2, 8))
    own = 0
    for step in range(100):
        torch.manual_seed(step)
        made = COACH.batch(one, method, ids, step)
        assert torch.equal(made[:, :4], ids[:, :4])
        assert COACH.told(one, method)["own_text"] == (0.0 if torch.equal(made, ids) else 0.5)
        own += one.notes[OWN] > 0
    assert 20 <= own <= 40


def test_training_and_its_checkpointing_are_as_before(tiny_llama: Subject) -> None:
    tiny_llama.model.gradient_checkpointing_enable({"use_reentrant": False})
    tiny_llama.model.train()
    assert written(tiny_llama, torch.tensor([[1, 2]]), 6, 1.0).shape == (1, 6)
    assert tiny_llama.model.training


@pytest.mark.parametrize(
    ("losses", "field"),
    [({"logits": 0.0, "hidden": 1.0}, "losses.logits"), ({"logits": 1.0, "labels": 0.5}, "losses.labels")],
)
def test_its_own_words_are_no_labels_and_need_a_teacher(
    losses: dict[str, float], field: str, tiny_llama: Subject
) -> None:
    with pytest.raises(RecipeError) as refused:
        COACH.begin(pupil(tiny_llama, losses=losses), OnPolicy())
    assert refused.value.field == field


def test_an_encoder_writes_nothing(build: Callable[..., Subject]) -> None:
    from dataclasses import replace

    facts = build("llama").facts
    assert OnPolicy().refuse(facts) is None
    assert "encoder" in str(OnPolicy().refuse(replace(facts, task="encoder")))
