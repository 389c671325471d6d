"""Every environment variable that the worker reads, once, as typed values.

`Settings.from_environment` is called when the worker starts. A variable that is set but invalid raises
`SettingsError`, whose text names it. An empty variable counts as unset. Secrets have a type that prints as stars.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from flux_engine.units import GIB

Profile = Literal["quality", "balanced", "speed", "memory"]
Quantisation = Literal["none", "int8_weight_only", "int8_dynamic", "fp8_dynamic"]
Offload = Literal["none", "text", "balanced", "model", "group", "sequential"]


class SettingsError(Exception):
    """An environment variable is set but invalid; the worker must not start."""


def _split_on_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(HOST.fullmatch(host) for host in value):
        raise ValueError("must be host names such as huggingface.co or *.hf.co, or *, separated by commas")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    from redis.asyncio.connection import parse_url  # takes a while, and only where it is set

    try:
        parse_url(value.get_secret_value())
    except ValueError:  # whose text may hold a password
        raise ValueError("must be a redis://, rediss:// or unix:// URL") from None
    return value


def _bucket_name(value: str) -> str:
    if not BUCKET_NAME.fullmatch(value):
        raise ValueError("must be 3 to 63 letters, digits, dots, hyphens or underscores")
    return value


def _bucket_region(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", value):
        raise ValueError("must be letters, digits and hyphens")
    return value


def _bucket_prefix(value: str) -> str:
    prefix = value.strip("/")
    if not BUCKET_PREFIX.fullmatch(prefix) or len(prefix) > 200:
        raise ValueError("must be path segments of letters, digits, dots, hyphens and underscores")
    return prefix


def _public_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


HOST: Final = re.compile(r"\*|(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
BUCKET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
BUCKET_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

Hosts = Annotated[tuple[str, ...], BeforeValidator(_split_on_commas), AfterValidator(_hosts)]

LORA_FILE_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co", "civitai.com", "*.civitai.com")


class Settings(BaseModel):
    """The worker's configuration. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    flux_model: str | None = Field(
        None, description="Model served by default: a catalogue name, Hugging Face id or folder"
    )
    model_volume: Path = Field(Path("/runpod-volume"), description="Models, LoRAs and compile caches live here")
    warmup: Literal["lazy", "eager"] = Field(
        "lazy", description="`lazy` loads the model at the first job that needs it, `eager` begins at start"
    )
    profile: Profile = Field("balanced", description="What a plan for the GPU favours where it must choose")
    quantisation: Quantisation | None = Field(
        None, description="How the transformer's weights are kept; by default as the plan chooses"
    )
    text_quantisation: Quantisation | None = Field(
        None, description="How the largest text encoder's weights are kept; by default as the plan chooses"
    )
    offload: Offload | None = Field(None, description="What leaves the GPU while it rests; by default as planned")
    compile: bool | None = Field(None, description="Whether the transformer is compiled; by default as planned")
    step_cache: bool | None = Field(None, description="Whether steps are cached; by default as the profile allows")
    attention_slicing: bool = Field(
        False, description="Accepted for scripts that set it; the plan says what stands in its place"
    )
    hf_token: SecretStr | None = Field(None, description="Hugging Face token, sent to its own host only")
    civitai_token: SecretStr | None = Field(None, description="Civitai token, sent to its own host only")

    bucket_endpoint_url: str | None = Field(None, description="S3-compatible storage for results, with its two keys")
    bucket_access_key_id: SecretStr | None = Field(None, description="Access key of the bucket")
    bucket_secret_access_key: SecretStr | None = Field(None, description="Secret key of the bucket")
    bucket_name: Annotated[str, AfterValidator(_bucket_name)] | None = Field(
        None, description="Bucket; by default the last part of a path-style endpoint"
    )
    bucket_region: Annotated[str, AfterValidator(_bucket_region)] | None = Field(
        None, description="Region that requests are signed for"
    )
    bucket_prefix: Annotated[str, AfterValidator(_bucket_prefix)] = Field(
        "flux", description="What every object key begins with"
    )
    bucket_public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        None, description="Public base URL, in place of presigned ones"
    )
    bucket_addressing: Literal["path", "virtual"] = Field("path", description="How the bucket stands in a URL")
    url_expiry_seconds: int = Field(86_400, ge=60, le=604_800, description="How long a presigned URL works")
    output_dir: Path = Field(Path("outputs"), description="Where local runs write their files")

    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None, description="Result cache; without it an embedded server is started"
    )
    cache_ttl_seconds: int = Field(604_800, ge=1, description="How long a result can be reused")
    cache_namespace: str | None = Field(
        None, description="Keys of two endpoints never meet; by default the endpoint id"
    )

    worker_concurrency: int = Field(
        1, ge=1, le=8, description="Jobs in flight; with 2 or more, transfers overlap with the GPU"
    )
    max_video_work: float = Field(2_000, gt=0, description="Bound of a video's frames x steps x megapixels")
    gpu_price_per_hour: float | None = Field(
        None, gt=0, description="Price of this GPU in US dollars, for `usage.cost_usd`"
    )
    lora_max_bytes: int = Field(2 * GIB, ge=1, description="Largest LoRA file")
    lora_cache_bytes: int = Field(20 * GIB, ge=1, description="LoRAs kept on the volume, least recently used go")
    lora_hosts: Hosts = Field(
        LORA_FILE_HOSTS, description="Hosts that a LoRA URL may name, comma-separated; `*` is any public one"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged")

    @model_validator(mode="after")
    def _bucket_is_all_or_none(self) -> Self:
        parts = {
            "BUCKET_ENDPOINT_URL": self.bucket_endpoint_url,
            "BUCKET_ACCESS_KEY_ID": self.bucket_access_key_id,
            "BUCKET_SECRET_ACCESS_KEY": self.bucket_secret_access_key,
        }
        missing = [name for name, value in parts.items() if value is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"{', '.join(missing)} must be set as well: a bucket needs all of {', '.join(parts)}")
        return self

    @property
    def has_bucket(self) -> bool:
        return self.bucket_endpoint_url is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables of `environment`; raises SettingsError with a line a faulty variable."""
        values = {name: environment[name.upper()] for name in cls.model_fields if environment.get(name.upper())}
        values.setdefault("cache_namespace", environment.get("RUNPOD_ENDPOINT_ID") or "local")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError("\n".join(_line(detail) for detail in error.errors())) from None


def _line(detail: Mapping[str, object]) -> str:
    location = detail["loc"]
    name = ".".join(str(part) for part in location).upper() if isinstance(location, tuple) else ""
    context = detail.get("ctx")
    said = context.get("error", detail["msg"]) if isinstance(context, dict) else detail["msg"]
    return f"{name}: {said}" if name else str(said)


def default_cache_folder() -> Path:
    """What this machine keeps between runs, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flux-engine"
