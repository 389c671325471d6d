"""Which file of a Hugging Face repository a LoRA is, asked of the hub by huggingface_hub.

The bytes are not fetched here: the URL is opened by `fetch`, within its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.inputs.lora_source import SUFFIX, HubLora

HUB_URL: Final = "https://huggingface.co"
TIMEOUT_S: Final = 10.0
USUAL_FILE: Final = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file at one commit; size and SHA-256 where the hub tells them before a download."""

    name: str
    commit: str
    url: str
    num_bytes: int | None
    sha256: str | None


def find_hub_file(source: HubLora, *, token: SecretStr | None, endpoint: str = HUB_URL) -> HubFile:
    """Ask what `source` names at this moment; blocks for one request.

    Raises InvalidInput where the repository holds no such file, or several, and InputFetchFailed where the hub does
    not answer or hides the repository.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of its HTTP library, whichever it is
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=endpoint, token=token.get_secret_value() if token else False)
    try:
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=TIMEOUT_S)
    except HFValidationError as error:
        raise InvalidInput(f"`{source.repo}` is no name of a repository on the hub", field="loras") from error
    except RevisionNotFoundError as error:
        raise InputFetchFailed(f"`{source.repo}` has no revision `{source.revision}`") from error
    except RepositoryNotFoundError as error:
        hidden = "" if token else "; where it is private, set HF_TOKEN on this endpoint"
        raise InputFetchFailed(f"the hub shows no repository `{source.repo}`{hidden}") from error
    except OfflineModeIsEnabled as error:
        raise InputFetchFailed(
            "this worker does not ask the hub (HF_HUB_OFFLINE is set); send the file's URL"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        is_passing = status is not None and (status == 408 or status >= 500)
        raise InputFetchFailed("the hub refuses to show the repository", retryable=is_passing, status=status) from error
    except (HTTPError, OSError) as error:
        raise InputFetchFailed("the hub does not answer; try again", retryable=True) from error
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    name = source.file or _only_lora(source.repo, list(files))
    if name not in files or info.sha is None:
        raise InvalidInput(f"`{source.repo}` holds no file `{name}`", field="loras")
    lfs = files[name].lfs
    return HubFile(
        name=name,
        commit=info.sha,
        url=hf_hub_url(source.repo, name, revision=info.sha, endpoint=endpoint),
        num_bytes=files[name].size,
        sha256=lfs.sha256 if lfs else None,
    )


def _only_lora(repo: str, names: list[str]) -> str:
    """The LoRA that is meant where none is named: the usual file, or the only one at the top."""
    loras = [name for name in names if name.endswith(SUFFIX) and len(PurePosixPath(name).parts) == 1]
    if USUAL_FILE in loras:
        return USUAL_FILE
    if len(loras) == 1:
        return loras[0]
    if not loras:
        raise InvalidInput(f"`{repo}` holds no .safetensors file at its top; name one: `{repo}:FILE`", field="loras")
    shown = ", ".join(sorted(loras)[:5])
    raise InvalidInput(f"`{repo}` holds {len(loras)} LoRAs; name one, as in `{repo}:FILE`: {shown}", field="loras")
