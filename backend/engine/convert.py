"""Convert a GGUF file once to a safetensors folder, which loads in seconds: `python -m backend.engine.convert`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from backend.catalog import resolve
from backend.engine.load import read_gguf_model
from backend.ggufheader import read_gguf
from backend.recipe.base import RecipeError


def convert(file: Path, out: Path) -> None:
    """Write the file's weights in fp32, its config and its tokenizer to the folder `out`.

    Raises:
        RecipeError: when the file is missing, cut short, or of an architecture that transformers cannot read.
    """
    ref = resolve(str(file))
    read_gguf(ref.place)
    model, tokenizer = read_gguf_model(ref.place, torch.float32)
    model.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)


def main() -> int:
    """`python -m backend.engine.convert GGUF OUT`: exit 0 when done, 2 for a file that cannot be converted."""
    parser = argparse.ArgumentParser(prog="python -m backend.engine.convert", description=main.__doc__)
    parser.add_argument("gguf", type=Path, metavar="GGUF")
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    try:
        convert(args.gguf, args.out)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
