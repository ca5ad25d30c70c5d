"""The model card: the README.md of a saved model."""

from __future__ import annotations

from backend.saved import Saved
from backend.savedsizes import size_lines

CARD = """\
# {source}, {label}

Saved by Headway: {source} with {label}. This folder needs no other: race it with its path as the model.

```
python -m backend race PRESET --model FOLDER
```

{sizes}

Formats: {formats}. recipe.json holds the whole recipe{besides}, the shape of every packed layer, and versions.
{openers}
The terms of {source} hold for this folder too.
"""
PACKED = (
    "Its packed layers are codes and scales under names of Headway's own: transformers refuses it, by design.\n"
    "`python -m backend save ... --gguf FILE` writes what llama.cpp opens.\n"
)
PLAIN = "It is a plain safetensors model: transformers opens it as it is.\n"


def model_card(saved: Saved, file_bytes: int) -> str:
    """The card as Markdown."""
    count: dict[str, int] = {}
    for layer in saved.layers.values():
        count[layer.format] = count.get(layer.format, 0) + 1
    formats = ", ".join(f"{number} layers {name}" for name, number in count.items()) or "plain floats"
    besides = f" (of it {', '.join(saved.not_weights)} is no weight and must be asked for again)" * bool(
        saved.not_weights
    )
    return CARD.format(
        source=saved.source,
        label=saved.label,
        sizes="\n".join(f"- {line}" for line in size_lines(saved, file_bytes)),
        formats=formats,
        besides=besides,
        openers=PACKED if saved.layers else PLAIN,
    )
