"""Quantization-aware training: what it computes with is what the conversion gives, and it learns so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from backend.catalog import resolve
from backend.engine.load import load
from backend.engine.training.look import look
from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.recipe.base import RecipeError
from backend.recipe.losses import Losses
from backend.recipe.methods.qat import Qat
from backend.recipe.switch import read_switch
from backend.recipe.training import Looks, Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.quantize.groups import FOUR_BITS
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.rounding import by_groups
from backend.techniques.train.fake_quantize import FakeQuantizedLinear
from backend.techniques.train.qat import QuantizationAware

Run = Callable[[Subject], Tensor]
SCHEMES = [
    {"bits": 4},
    {"bits": 4, "symmetric": True, "head": "int4"},
    {"bits": 4, "group_size": 64, "head": "keep"},
    {"bits": 3, "head": "int4"},
    {"bits": 2},
    {"bits": 2, "symmetric": True, "head": "keep"},
    {"bits": 8},
    {"bits": 8, "head": "keep"},
]
# Of the logits' norm: the int4 kernel multiplies bf16 activations, in the head (int8, more than 16 rows) fp32.
KERNEL = 0.02


def pupil(subject: Subject, fields: dict[str, Any], student: dict[str, Any] | None = None) -> tuple[Pupil, Qat]:
    asked = Training.read({"name": "x", "student": {"switches": student or {}}, "methods": {"qat": fields}})
    method = asked.methods["qat"]
    assert isinstance(method, Qat)
    return Pupil(subject, None, asked), method


def convert(subject: Subject, method: Qat) -> None:
    for kind, fields in method.conversion.items():
        switch = read_switch(kind, fields)
        apply_switch(subject, switch)
        assert read_back(subject, switch).took_effect


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def learn(subject: Subject, steps: int, rate: float = 3e-3) -> list[float]:
    """Losses of so many steps on the subject's own tokens."""
    ids = torch.tensor([subject.sample_ids])
    subject.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(subject.model.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = subject.model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    subject.model.eval().requires_grad_(False)
    return losses


@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_what_training_saw_is_what_the_conversion_gives(
    any_subject: Subject, logits: Run, fields: dict[str, Any]
) -> None:
    """Before the first step, which is post-training quantization of the same bits, and after the last one."""
    before = Subject(copy.deepcopy(any_subject.model), None, any_subject.facts, any_subject.device)
    before.sample_ids = any_subject.sample_ids
    student, method = pupil(any_subject, fields)
    coach = QuantizationAware()
    coach.begin(student, method)
    seen = logits(any_subject)
    convert(before, method)
    assert off(seen, logits(before)) < KERNEL

    learn(any_subject, 3)
    seen = logits(any_subject)
    assert off(seen, logits(before)) > 2 * KERNEL  # it has learned something
    coach.finish(student, method)
    plain = {type(layer) for layer in any_subject.linears().values()}
    assert plain == {nn.Linear}
    convert(any_subject, method)
    assert off(logits(any_subject), seen) < KERNEL


def test_a_look_before_the_first_step_is_post_training_quantization(tiny_gqa: Subject) -> None:
    ids = np.random.default_rng(0).integers(1, 256, 200).astype(np.int32)
    windows, looks = Windows(ids, 32, 0), Looks(windows=3, questions=0)

    def loss(subject: Subject) -> float:
        subject.model.eval()
        pieces = look(subject, None, windows, looks, exam=False)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return float(end.value["loss"])

    whole = loss(tiny_gqa)
    packed = Subject(copy.deepcopy(tiny_gqa.model), None, tiny_gqa.facts, tiny_gqa.device)
    student, method = pupil(tiny_gqa, {"bits": 2})
    convert(packed, method)
    tiny_gqa.model.train()
    QuantizationAware().begin(student, method)
    first = loss(tiny_gqa)
    assert abs(first - loss(packed)) < 0.01 < abs(first - whole)


def test_names_ties_and_parameters_stay(tiny_llama: Subject) -> None:
    model: Any = tiny_llama.model
    before = dict(model.named_parameters())
    student, method = pupil(tiny_llama, {"bits": 3})
    QuantizationAware().begin(student, method)
    assert len([m for m in model.modules() if isinstance(m, FakeQuantizedLinear)]) == 22
    assert {name: id(value) for name, value in model.named_parameters()} == {n: id(v) for n, v in before.items()}
    QuantizationAware().finish(student, method)
    assert {name: id(value) for name, value in model.named_parameters()} == {n: id(v) for n, v in before.items()}
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_trainer_brings_the_loss_down_and_leaves_plain_layers(build: Callable[..., Subject]) -> None:
    """From a teacher's logits at 2 bits: what rounding has cost goes down, and the conversion keeps it."""
    teacher, subject = build("llama"), build("llama")
    order = Training.read(
        {"name": "x", "methods": {"qat": {"bits": 2}}, "pace": {"tokens": 2560, "batch": 4, "length": 16, "rate": 3e-3}}
    )
    tokens = np.random.default_rng(3).integers(0, 256, 2000).astype(np.int32)
    trainer = Trainer(Pupil(subject, teacher, order), Windows(tokens, 16, 1), torch.float32)
    losses = [trainer.step().loss for _ in range(order.steps)]
    assert losses[-1] < 0.7 * losses[0]
    trainer.finish()
    assert {type(layer) for layer in subject.linears().values()} == {nn.Linear}


def test_zeros_stay_beside_a_symmetric_grid(tiny_llama: Subject) -> None:
    switch = read_switch("magnitude", {"ratio": 0.5})
    apply_switch(tiny_llama, switch)
    student, _ = pupil(tiny_llama, {"bits": 4, "symmetric": True}, {"magnitude": {"ratio": 0.5}})
    student.asked = student.asked.model_copy(update={"losses": Losses(logits=0.0, labels=1.0)})
    tokens = np.random.default_rng(3).integers(0, 256, 2000).astype(np.int32)
    trainer = Trainer(student, Windows(tokens, student.asked.pace.length, 1), torch.float32)
    layer: Any = tiny_llama.model.get_submodule("model.layers.0.mlp.up_proj")
    there = layer.weight != 0
    assert there.float().mean() == pytest.approx(0.5, abs=0.01)
    trainer.step()
    assert not layer.rounded[~there].any()


def test_int8_activations_round_inputs_a_token_and_leave_the_weights_grid(tiny_llama: Subject, logits: Run) -> None:
    student, method = pupil(tiny_llama, {"bits": 4})
    finer = copy.deepcopy(tiny_llama)
    QuantizationAware().begin(student, method)
    student, method = pupil(finer, {"bits": 4, "activations": "int8"})
    QuantizationAware().begin(student, method)
    assert 1e-4 < off(logits(finer), logits(tiny_llama)) < 0.1
    layer: Any = finer.model.get_submodule("model.layers.0.mlp.up_proj")
    x = torch.tensor([[-1.0] + [0.3] * 62 + [3.0]])  # a step of 4 / 255, the zero point a whole step
    assert (layer.round_input(x) - x).abs().max() <= 2 / 255 + 1e-6
    assert torch.equal(layer.rounded, by_groups(32, FOUR_BITS)(layer.weight))
    assert finer.model.get_output_embeddings().round_input is None  # type: ignore[union-attr]


def test_experts_and_encoders_are_converted_to_what_they_saw(tiny_moe: Subject, logits: Run) -> None:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    bert: Any = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    encoder = Subject(bert, None, tiny_moe.facts, torch.device("cpu"))
    ids = torch.arange(1, 41)[None]

    def states(subject: Subject) -> Tensor:
        with torch.inference_mode():
            return subject.model(input_ids=ids).last_hidden_state[0]

    for subject, run in ((tiny_moe, logits), (encoder, states)):
        student, method = pupil(subject, {"bits": 3})
        QuantizationAware().begin(student, method)
        seen = run(subject)
        QuantizationAware().finish(student, method)
        convert(subject, method)
        assert off(run(subject), seen) < 2 * KERNEL  # a token near the border may take another expert


def test_models_without_layers_that_fit_are_refused(build: Callable[..., Subject]) -> None:
    narrow = build("llama", hidden_size=16, intermediate_size=16, head_dim=4)
    student, method = pupil(narrow, {"head": "keep"})
    with pytest.raises(RecipeError, match="at least 32 inputs"):
        QuantizationAware().begin(student, method)
    gpt2: Any = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=4))
    student, method = pupil(Subject(gpt2, None, narrow.facts, torch.device("cpu")), {})
    with pytest.raises(RecipeError, match="GPT-2"):
        QuantizationAware().begin(student, method)


@pytest.mark.real
def test_first_layers_of_gemma_learn_at_two_bits(gemma_folder: Path) -> None:
    subject = load(resolve(str(gemma_folder)), dtype=torch.float32)
    model: Any = subject.model
    model.model.layers = model.model.layers[:2]
    text = "A family of fishermen lived on a small island for many winters, and kept the lighthouse there. " * 2
    assert subject.tokenizer is not None
    ids = torch.tensor([subject.tokenizer.encode(text)])
    with torch.inference_mode():
        want = model.model(input_ids=ids, use_cache=False).last_hidden_state
    student, method = pupil(subject, {"bits": 2, "head": "keep"})
    QuantizationAware().begin(student, method)
    layers = model.model.layers.requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), 1e-4)
    losses = []
    for _ in range(4):
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state
        loss = (states - want).pow(2).mean() / want.pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    with torch.inference_mode():
        seen = model.model(input_ids=ids, use_cache=False).last_hidden_state
    QuantizationAware().finish(student, method)
    convert(subject, method)
    with torch.inference_mode():
        assert off(model.model(input_ids=ids, use_cache=False).last_hidden_state, seen) < 2 * KERNEL
