"""Files of a Hub model, with a person's patience in mind: a Hub that cannot be reached says so within seconds."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from backend.modelref import ModelRef, bad_model

if TYPE_CHECKING:
    from backend.recipe.base import RecipeError

PATIENCE_S = 5.0
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def config_file(ref: ModelRef) -> Path:
    """The model's config.json, fetched or from the Hub's cache on this machine.

    Raises:
        RecipeError: when the Hub cannot be reached, or has no such model, revision or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    local = not _reachable()
    try:
        return Path(
            hf_hub_download(
                ref.name, "config.json", revision=ref.revision, etag_timeout=PATIENCE_S, local_files_only=local
            )
        )
    except LocalEntryNotFoundError:
        raise _unreachable(ref) from None
    except (HfHubHTTPError, OSError) as error:
        raise _not_there(ref, error) from None


def snapshot(ref: ModelRef, code: bool = False) -> Path:
    """The folder of all files that loading needs, fetched where they are not in the Hub's cache yet.

    Args:
        code: fetch the Python files that come with the model too.
    Raises:
        RecipeError: as `config_file` does.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    local = not _reachable()
    wanted = _WANTED + (["*.py"] if code else [])
    try:
        return Path(
            snapshot_download(
                ref.name, revision=ref.revision, etag_timeout=PATIENCE_S, local_files_only=local, allow_patterns=wanted
            )
        )
    except LocalEntryNotFoundError:
        raise _unreachable(ref) from None
    except (HfHubHTTPError, OSError) as error:
        raise _not_there(ref, error) from None


def _reachable() -> bool:
    """Whether the Hub answers at all: its own client would try for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError:
        return True  # an answer, whatever it says
    except (urllib.error.URLError, OSError, HTTPException):
        return False
    return True


def _unreachable(ref: ModelRef) -> RecipeError:
    remedy = "The Hub cannot be reached. Give a local folder or a GGUF file, or race a shipped model."
    return bad_model(ref.name, "a model that is on this machine, or a Hub that can be reached", remedy)


def _not_there(ref: ModelRef, error: Exception) -> RecipeError:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        remedy = "Accept its terms on the Hub and set HF_TOKEN, or give a local folder."
        return bad_model(ref.name, "a model that this account may read", remedy)
    if isinstance(error, RevisionNotFoundError):
        return bad_model(f"{ref.name} at {ref.revision}", "a revision that the model has", "Leave the revision out.")
    first = str(error).strip().split("\n")[0][:200]
    return bad_model(
        ref.name, "a model of the Hub that has a config.json", f"Check the spelling. The Hub says: {first}"
    )
