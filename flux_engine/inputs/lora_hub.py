"""Which file of a Hugging Face repository a LoRA is, asked of the hub by huggingface_hub.

The file itself is not fetched here: net.fetch opens its URL, within its own bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.inputs.lora_source import SUFFIX, HubLora
from flux_engine.net.status import PASSING, asked_to_wait

HUB_URL: Final = "https://huggingface.co"
TIMEOUT_S: Final = 10.0
USUAL_FILES: Final = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # from diffusers, from PEFT
CONFIG: Final = "adapter_config.json"  # PEFT writes it beside the weights
WHOLE_MODEL: Final = "model_index.json"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file at one commit; its size and SHA-256 if the hub tells them, and the URL of a PEFT config beside it."""

    name: str
    commit: str
    url: str
    num_bytes: int | None
    sha256: str | None
    config_url: str | None


def find_hub_file(source: HubLora, *, token: SecretStr | None, endpoint: str = HUB_URL) -> HubFile:
    """Ask the hub what `source` names now; blocks for one request.

    Raises InvalidInput if the repository holds no such file, or several, and InputFetchFailed if the hub does not
    answer or does not show the repository.
    """
    from huggingface_hub import hf_hub_url

    info = _model_info(source, token=token, endpoint=endpoint)
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    name = source.file or _only_lora(source, list(files))
    if name not in files or info.sha is None:
        loras = ", ".join(sorted(other for other in files if other.lower().endswith(SUFFIX))[:5])
        holds = f"; it holds {loras}" if loras else ""
        raise InvalidInput(f"`{source.repo}` holds no file `{name}`{holds}", field="loras")
    config = PurePosixPath(name).with_name(CONFIG).as_posix()
    lfs = files[name].lfs
    return HubFile(
        name=name,
        commit=info.sha,
        url=hf_hub_url(source.repo, name, revision=info.sha, endpoint=endpoint),
        num_bytes=files[name].size,
        sha256=lfs.sha256 if lfs else None,
        config_url=hf_hub_url(source.repo, config, revision=info.sha, endpoint=endpoint) if config in files else None,
    )


def _model_info(source: HubLora, *, token: SecretStr | None, endpoint: str) -> Any:
    """What the hub says of the repository, its errors in the contract's words."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError belongs to its HTTP library
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=endpoint, token=token.get_secret_value() if token else False)
    try:
        return api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=TIMEOUT_S)
    except HFValidationError as error:
        raise InvalidInput(f"`{source.repo}` is no name of a repository on the hub", field="loras") from error
    except RevisionNotFoundError as error:
        raise InputFetchFailed(f"`{source.repo}` has no revision `{source.revision}`; check its spelling") from error
    except GatedRepoError as error:
        account = "the account of HF_TOKEN" if token else "an account, and set its HF_TOKEN on this endpoint"
        raise InputFetchFailed(f"`{source.repo}` is gated: accept its terms on the hub with {account}") from error
    except RepositoryNotFoundError as error:
        hidden = (
            "check its spelling" if token else "check its spelling; if it is private, set HF_TOKEN on this endpoint"
        )
        raise InputFetchFailed(f"the hub shows no repository `{source.repo}`; {hidden}") from error
    except OfflineModeIsEnabled as error:
        raise InputFetchFailed(
            "this worker does not ask the hub (HF_HUB_OFFLINE is set); send the file's URL"
        ) from error
    except HfHubHTTPError as error:
        raise _refused(error.response) from error
    except (HTTPError, OSError) as error:
        raise InputFetchFailed("the hub does not answer; send the job again", retryable=True) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a page in place of its JSON
        raise InputFetchFailed(
            "the hub answered with something else than a repository; send the job again", retryable=True
        ) from error


def _refused(response: Any) -> InputFetchFailed:
    status = response.status_code if response is not None else None
    if status in (401, 403):
        return InputFetchFailed(
            f"the hub refuses HF_TOKEN of this endpoint (status {status}); set a valid one", status=status
        )
    is_passing = status is not None and (status in PASSING or status >= 500)
    wait = asked_to_wait(response.headers.get("Retry-After", "")) if is_passing else ""
    advice = f"{wait}send the job again" if is_passing else "check the name and the revision"
    return InputFetchFailed(
        f"the hub does not show the repository (status {status}); {advice}", retryable=is_passing, status=status
    )


def _only_lora(source: HubLora, names: list[str]) -> str:
    """The LoRA that is meant if none is named: one of a usual name, or the only one."""
    repo, inside = source.repo, f"{source.folder}/" if source.folder else ""
    if WHOLE_MODEL in names and not inside:
        raise InvalidInput(f"`{repo}` is a whole model, no LoRA; serve it as a model (FLUX_MODEL)", field="loras")
    everywhere = [name for name in names if name.startswith(inside) and name.lower().endswith(SUFFIX)]
    at_top = [name for name in everywhere if "/" not in name.removeprefix(inside)]
    for usual in USUAL_FILES:
        if inside + usual in at_top:
            return inside + usual
    loras = at_top or everywhere
    if len(loras) == 1:
        return loras[0]
    place = f"the folder `{source.folder}` of `{repo}`" if inside else f"`{repo}`"
    if not loras:
        raise InvalidInput(f"{place} holds no .safetensors file; send a repository of a LoRA", field="loras")
    shown = ", ".join(sorted(loras)[:5])
    raise InvalidInput(f"{place} holds {len(loras)} LoRAs; name one, as in `{repo}:FILE`: {shown}", field="loras")
