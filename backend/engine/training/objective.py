"""The objective: a batch through student and teacher, and what they are held against each other by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.encode import pooled
from backend.engine.training.layermap import LayerMap, layer_map
from backend.engine.training.loss import attention_loss, embedding_loss, hidden_loss, label_loss, soft_loss
from backend.recipe.base import RecipeError
from backend.recipe.losses import Losses
from backend.techniques.base import Subject

EAGER = "eager"  # the attention that gives its maps
_FIELD = {"hidden": "hidden_states", "attention": "attentions"}


class Objective:
    """The losses of a pair. `projection` is there where hidden states of two widths are compared, and is trained."""

    def __init__(self, losses: Losses, student: Subject, teacher: Subject | None, seed: int) -> None:
        """Look at both with one short call.

        Raises:
            RecipeError: for a loss that this pair cannot have.
        """
        self.losses, self.student, self.teacher = losses, student, teacher if losses.taught else None
        self.projection: nn.Linear | None = None
        self._before: list[tuple[Any, str]] = []
        self._map: LayerMap | None = None
        if self.teacher is None:
            return
        if losses.attention:
            self._before = [_made_eager(subject) for subject in (student, self.teacher)]
        if losses.inside or losses.embedding:
            self._match(self.teacher, seed)

    @torch.no_grad()
    def _match(self, teacher: Subject, seed: int) -> None:
        """Find out which layers are held against which, and whether widths differ."""
        token = torch.zeros((1, 2), dtype=torch.long, device=self.student.device)
        ours, theirs = (self._call(subject, token, None) for subject in (self.student, teacher))
        name = self.student.facts.name
        for loss in ("hidden", "attention"):
            counts = [len(getattr(output, _FIELD[loss], None) or ()) for output in (ours, theirs)]
            if getattr(self.losses, loss) and not all(counts):
                remedy = f"Set losses.{loss} to 0, or choose another student."
                raise RecipeError(f"losses.{loss}", name, "a pair of models whose layers can be seen", remedy)
        widths = [_width(output) for output in (ours, theirs)]
        if self.losses.embedding and widths[0] != widths[1]:
            value = f"{name}: vectors of {widths[0]}"
            remedy = "Choose another student, or cut layers and not the width."
            raise RecipeError("losses.embedding", value, f"vectors of {widths[1]}, as the teacher's", remedy)
        if not self.losses.inside:
            return
        if self.losses.hidden and widths[0] != widths[1]:
            self.projection = _projection(widths[0], widths[1], seed).to(self.student.device)
        field = _FIELD["hidden" if self.losses.hidden else "attention"]
        layers = [len(getattr(output, field)) - (field == "hidden_states") for output in (ours, theirs)]
        self._map = layer_map(self.student, teacher, *layers)

    def _call(self, subject: Subject, ids: Tensor, mask: Tensor | None) -> Any:
        asks: dict[str, Any] = {"attention_mask": mask}
        if subject.facts.task == "decoder":
            asks["use_cache"] = False
        if self.losses.hidden:
            asks["output_hidden_states"] = True
        if self.losses.attention:
            asks["output_attentions"] = True
        return subject.model(input_ids=ids, **asks)

    def parts(self, ids: Tensor, labels: Tensor | None, mask: Tensor | None) -> dict[str, Tensor]:
        """The losses that have a weight, before they are weighted.

        Args:
            ids: (B, T). labels: (B, T), the next tokens, of a decoder. mask: (B, T), 0 where there is filling.
        """
        theirs = None
        if self.teacher is not None:
            with torch.no_grad():
                theirs = self._call(self.teacher, ids, mask)
        ours = self._call(self.student, ids, mask)
        found: dict[str, Tensor] = {}
        if self.losses.labels and labels is not None:
            found["labels"] = label_loss(ours.logits.flatten(0, 1), labels.flatten())
        return found if theirs is None else found | self._taught(ours, theirs, mask)

    def _taught(self, ours: Any, theirs: Any, mask: Tensor | None) -> dict[str, Tensor]:
        losses, found = self.losses, {}
        if losses.logits:
            found["logits"] = soft_loss(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1), losses)
        if losses.embedding and mask is not None and self.teacher is not None:
            vectors = pooled(self.student, ours.last_hidden_state, mask)
            found["embedding"] = embedding_loss(
                vectors, pooled(self.teacher, theirs.last_hidden_state, mask), losses.vectors
            )
        if losses.hidden and self._map is not None:
            pairs = zip(ours.hidden_states[1:], self._map.states, strict=True)  # the first is the embedding's
            each = [hidden_loss(h, theirs.hidden_states[at + 1], mask, self.projection) for h, at in pairs]
            found["hidden"] = torch.stack(each).mean()
        if losses.attention and self._map is not None:
            maps = zip(ours.attentions, self._map.maps, strict=True)
            each = [attention_loss(a, theirs.attentions[at], mask, losses.maps) for a, at in maps]
            found["attention"] = torch.stack(each).mean()
        return found

    def finish(self) -> None:
        """Give both models back the attention that they came with."""
        for model, way in self._before:
            model.set_attn_implementation(way)
        self._before = []


def _made_eager(subject: Subject) -> tuple[Any, str]:
    model: Any = subject.model
    before = str(model.config._attn_implementation)
    try:
        model.set_attn_implementation(EAGER)
    except (ValueError, ImportError) as error:
        remedy = f"Set losses.attention to 0. transformers says: {str(error)[:100]}"
        raise RecipeError("losses.attention", subject.facts.name, "a model with eager attention", remedy) from error
    return model, before


def _width(output: Any) -> int:
    """Of the hidden states that a call gave; 0 where it gave none."""
    states = getattr(output, "hidden_states", None) or (getattr(output, "last_hidden_state", None),)
    return 0 if states[-1] is None else int(states[-1].shape[-1])


def _projection(ours: int, theirs: int, seed: int) -> nn.Linear:
    """From the student's width to the teacher's, one for all layers: Jiao et al. 2020 (TinyBERT), equation 8."""
    made = nn.Linear(ours, theirs, bias=False)
    weight = torch.randn(theirs, ours, generator=torch.Generator().manual_seed(seed)) / ours**0.5
    with torch.no_grad():
        made.weight.copy_(weight)
    return made
