"""The tokenizer of a GGUF file: byte-level BPE as 'gpt2', BPE that was made of sentencepiece as 'llama'."""

from __future__ import annotations

import json
import re
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from backend.recipe.base import RecipeError

SPACE = "▁"  # how sentencepiece writes a space
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unk_token_id", "pad": "pad_token_id"}


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Write vocabulary, merges or scores, token types and special tokens.

    Args:
        rows: of the embedding; ids that the vocabulary lacks are filled with tokens that nobody can say.
    Raises:
        RecipeError: for a tokenizer that llama.cpp would read in another way.
    """
    whole = _whole(tokenizer)
    model = whole["model"]
    texts = _texts(model["vocab"], whole["added_tokens"], rows)
    added = {token["id"]: token for token in whole["added_tokens"]}
    if _is_byte_level(whole):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([_pair(merge, " ") for merge in model["merges"]])
    else:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(texts, model["merges"]))
        writer.add_add_space_prefix(_prepends(whole))
        for place, token in added.items():  # said as a person writes them; llama.cpp looks for them before it splits
            if not token["special"]:
                texts[place] = token["content"].replace(SPACE, " ")
    writer.add_token_list(texts)
    writer.add_token_types([_type(place, text, added, model["vocab"]) for place, text in enumerate(texts)])
    for name, attribute in _IDS.items():
        if (number := getattr(tokenizer, attribute, None)) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    start = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and start[:1] == [tokenizer.bos_token_id])
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        writer.add_chat_template(template)


def _whole(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """tokenizer.json as plain data."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = json.loads(backend.to_str()) if backend is not None else {"model": {"type": type(tokenizer).__name__}}
    if whole["model"]["type"] != "BPE" or not (_is_byte_level(whole) or _is_sentencepiece(whole)):
        allowed = "a BPE tokenizer, byte-level with GPT-2's splitting or made of sentencepiece's"
        kind = f"{whole['model']['type']}, {(whole.get('pre_tokenizer') or {}).get('type', 'no splitting')}"
        raise RecipeError("gguf", kind, allowed, "Save it as a folder instead (--out).")
    return dict(whole)


def _is_byte_level(whole: dict[str, Any]) -> bool:
    split = whole.get("pre_tokenizer") or {}
    return split.get("type") == "ByteLevel" and split.get("use_regex", True) and not split.get("add_prefix_space")


def _is_sentencepiece(whole: dict[str, Any]) -> bool:
    return bool(whole["model"].get("byte_fallback")) and SPACE in json.dumps(
        [whole.get("normalizer"), whole.get("pre_tokenizer")], ensure_ascii=False
    )


def _prepends(whole: dict[str, Any]) -> bool:
    """Whether a text gets a space in front."""
    parts = [whole.get("normalizer") or {}, whole.get("pre_tokenizer") or {}]
    parts += [part for outer in parts for part in outer.get("normalizers", outer.get("pretokenizers", []))]
    return any(
        part.get("type") == "Prepend" or (part.get("type") == "Metaspace" and part.get("prepend_scheme") != "never")
        for part in parts
    )


def _texts(vocab: dict[str, int], added: list[dict[str, Any]], rows: int) -> list[str]:
    known = {number: text for text, number in vocab.items()} | {token["id"]: token["content"] for token in added}
    return [known.get(number, f"[PAD{number}]") for number in range(rows)]


def _pair(merge: Any, between: str) -> str:
    """A merge, which tokenizer.json writes as two texts or, of old, as one with a space in it."""
    return between.join(merge if isinstance(merge, list) else merge.split(" "))


def _scores(texts: list[str], merges: list[Any]) -> list[float]:
    """sentencepiece joins the pair whose result has the highest score first: the earlier merge has the higher one."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        first.setdefault(_pair(merge, ""), rank)
    ranks = {text: place for place, text in enumerate(first)}  # whole numbers that float32 tells apart
    return [-float(ranks[text] + 1) if text in ranks else 0.0 for text in texts]


def _type(place: int, text: str, added: dict[int, dict[str, Any]], vocab: dict[str, int]) -> gguf.TokenType:
    if place in added:
        return gguf.TokenType.CONTROL if added[place]["special"] else gguf.TokenType.USER_DEFINED
    if _BYTE.fullmatch(text):
        return gguf.TokenType.BYTE
    return gguf.TokenType.NORMAL if text in vocab else gguf.TokenType.UNUSED
