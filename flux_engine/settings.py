"""Every environment variable that the worker reads, once, as typed values.

`Settings.from_environment` is called when the worker starts. One rule holds for all variables: blanks and line breaks
around a value are not part of it, an empty one counts as unset, and an invalid one raises `SettingsError`, whose text
names the variable and the mend and holds nothing of its value. Secrets have a type that prints as stars.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin
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

from flux_engine.job.written.bucket_fields import sendable, trimmed, valid_bucket, valid_endpoint, valid_region
from flux_engine.units import GIB

Profile = Literal["quality", "balanced", "speed", "memory"]
Quantisation = Literal["none", "int8_weight_only", "int8_dynamic", "fp8_tensor", "fp8_dynamic"]
Algorithm = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
Offload = Literal["none", "text", "balanced", "model", "group", "sequential"]


class SettingsError(Exception):
    """An environment variable is set but invalid; the worker must not start."""


def _on_one_line(value: str) -> str:
    if not value.isprintable() or len(value) > MAX_CHARACTERS:
        raise ValueError(f"must be up to {MAX_CHARACTERS} printable characters on one line")
    return value


def _folder(value: str) -> Path:
    path = Path(_on_one_line(value))
    if any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise ValueError(f"must be a path whose parts have up to {MAX_NAME_BYTES} bytes each")
    existing = next((place for place in (path, *path.parents) if place.exists()), None)
    if existing is not None and not existing.is_dir():
        raise ValueError("must be a folder; there is a file in its place")
    return path


def _as_is(value: object) -> object:
    return _folder(value) if isinstance(value, str) else value


def _secret(value: SecretStr) -> SecretStr:
    return SecretStr(sendable(value.get_secret_value()))


def _pem(value: SecretStr) -> SecretStr:
    """PEM text, its line breaks restored where they came as `\\n`; or the path of a file, read when it is needed."""
    text = value.get_secret_value()
    if text.startswith("-----BEGIN "):
        return SecretStr(text.replace("\\n", "\n") + "\n")
    if len(text) > MAX_CHARACTERS or not text.isprintable():
        raise ValueError("must be PEM text, which begins with -----BEGIN, or the path of such a file")
    return value


def _split_on_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())
    return value


def _choice(annotation: object, value: object) -> object:
    """The choice of a Literal, or of an optional one, that `value` spells in any case; any other value unchanged."""
    literals = [annotation, *get_args(annotation)]
    choices = [choice for literal in literals if get_origin(literal) is Literal for choice in get_args(literal)]
    return next((c for c in choices if isinstance(value, str) and value.lower() == str(c).lower()), value)


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(HOST_PATTERN.fullmatch(host) for host in value):
        raise ValueError("must be host names such as huggingface.co or *.hf.co, or *, separated by commas")
    return value


def usable_redis_url(value: SecretStr) -> SecretStr:
    """`value`, or ValueError where redis-py cannot use it: its own parser takes a password for a port where it is not
    percent-encoded."""
    from redis.asyncio import ConnectionPool  # takes a while, and only where it is set
    from redis.exceptions import RedisError

    url = value.get_secret_value()
    mend = "must be a redis://, rediss:// or unix:// URL, special characters in its password percent-encoded (# is %23)"
    try:
        parts = urlsplit(url)
        is_socket = parts.scheme == "unix"
        has_place = bool(parts.path.strip("/") if is_socket else HOST.fullmatch(parts.hostname or ""))
        if parts.scheme not in ("redis", "rediss", "unix") or not has_place or parts.fragment or not url.isprintable():
            raise ValueError(mend)
        if not is_socket and not re.fullmatch(r"/?\d{0,5}", parts.path):
            raise ValueError(f"{mend}; its path is the number of a database, such as /0")
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call] # connects to nothing yet
    except (TypeError, RedisError):
        raise ValueError("has an option behind `?` that redis-py does not take; leave it out") from None
    except ValueError as error:  # its text may hold a password: the standard library and redis-py quote the URL
        raise ValueError(str(error) if str(error).startswith(mend) else mend) from None
    return value


def _bucket_prefix(value: str) -> str:
    prefix = value.strip("/")
    if not BUCKET_PREFIX.fullmatch(prefix) or len(prefix) > 200:
        raise ValueError("must be folder names of letters, digits, dots, hyphens and underscores, with / between them")
    return prefix


def _public_url(value: str) -> str:
    return valid_endpoint(value).rstrip("/")


MAX_CHARACTERS: Final = 1024
MAX_NAME_BYTES: Final = 255  # one part of a path, on every file system in use
A_DECADE_S: Final = 10 * 365 * 24 * 3600
HOST_PATTERN: Final = re.compile(r"\*|(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
BUCKET_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

Line = Annotated[str, AfterValidator(_on_one_line)]
Folder = Annotated[Path, BeforeValidator(_as_is)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Pem = Annotated[SecretStr, AfterValidator(_pem)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_split_on_commas), AfterValidator(_hosts)]

LORA_FILE_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co", "civitai.com", "*.civitai.com")


class Settings(BaseModel):
    """The worker's configuration. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    flux_model: Line | None = Field(
        None, description="Model served by default: a catalogue name, Hugging Face id, folder or file"
    )
    model_volume: Folder = Field(Path("/runpod-volume"), description="Models, LoRAs and compile caches live here")
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
    hf_token: Secret | None = Field(None, description="Hugging Face token, sent to its own host only")
    civitai_token: Secret | None = Field(None, description="Civitai token, sent to its own host only")

    bucket_endpoint_url: Annotated[str, AfterValidator(valid_endpoint)] | None = Field(
        None, description="S3-compatible storage for results, with its two keys"
    )
    bucket_access_key_id: Secret | None = Field(None, description="Access key of the bucket")
    bucket_secret_access_key: Secret | None = Field(None, description="Secret key of the bucket")
    bucket_name: Annotated[str, AfterValidator(valid_bucket)] | None = Field(
        None, description="Bucket; by default the last part of a path-style endpoint"
    )
    bucket_region: Annotated[str, AfterValidator(valid_region)] | None = Field(
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
    output_dir: Folder = Field(Path("outputs"), description="Where local runs write their files")

    redis_url: Annotated[SecretStr, AfterValidator(usable_redis_url)] | None = Field(
        None, description="Result cache; without it an embedded server is started"
    )
    cache_ttl_seconds: int = Field(604_800, ge=1, le=A_DECADE_S, description="How long a result can be reused")
    cache_namespace: Line | None = Field(
        None, description="Keys of two endpoints never meet; by default the endpoint id"
    )

    worker_concurrency: int = Field(
        1,
        ge=1,
        le=8,
        description="Jobs made at a time, beside one that is being delivered; with 2 or more, downloads overlap with "
        "the GPU too",
    )
    max_video_work: float = Field(2_000, gt=0, le=10**9, description="Bound of a video's frames x steps x megapixels")
    gpu_price_per_hour: float | None = Field(
        None, gt=0, le=10**6, description="Price of this GPU in US dollars, for `usage.cost_usd`"
    )
    lora_max_bytes: int = Field(2 * GIB, ge=1, le=1024 * GIB, description="Largest LoRA file")
    lora_cache_bytes: int = Field(
        20 * GIB, ge=1, le=1024**2 * GIB, description="LoRAs kept on the volume; the least recently used go"
    )
    provenance: Literal["off", "marks", "c2pa"] = Field(
        "marks",
        description="What files say of their origin to machines: nothing; IPTC's digital source type in XMP; or that "
        "and a signed C2PA manifest",
    )
    content_filter: Line = Field(
        "off",
        description="Image classifier on the volume that may withhold pictures: a Hugging Face id or a folder; or off",
    )
    content_filter_threshold: float = Field(
        0.5, gt=0, le=1, description="Score, 0 to 1, from which a picture is withheld"
    )
    content_filter_labels: Annotated[tuple[str, ...], BeforeValidator(_split_on_commas)] = Field(
        (), description="The classifier's forbidden labels, comma-separated; by default what their names tell"
    )
    c2pa_certificates: Pem | None = Field(
        None, description="Certificates for `c2pa`, the signer's first: PEM text or a file; by default made and kept"
    )
    c2pa_private_key: Pem | None = Field(None, description="The signer's private key: PEM text or a file")
    c2pa_algorithm: Algorithm | None = Field(None, description="What the key signs by; by default what fits it")
    c2pa_timestamp_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        None, description="Time-stamping server (RFC 3161) that confirms when a manifest was signed"
    )
    c2pa_prompt: bool = Field(False, description="Whether a manifest holds the prompt")
    lora_hosts: Hosts = Field(
        LORA_FILE_HOSTS, description="Hosts that a LoRA URL may name, comma-separated; `*` is any public one"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged")

    @model_validator(mode="before")
    @classmethod
    def _choices_in_any_case(cls, values: Mapping[str, object]) -> dict[str, object]:
        return {name: _choice(cls.model_fields[name].annotation, value) for name, value in values.items()}

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

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.c2pa_certificates is None) != (self.c2pa_private_key is None):
            raise ValueError("C2PA_CERTIFICATES, C2PA_PRIVATE_KEY must both be set, or neither")
        return self

    @property
    def has_bucket(self) -> bool:
        return self.bucket_endpoint_url is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables of `environment`; raises SettingsError with a line a faulty variable."""
        values = set_variables(environment, cls.model_fields)
        namespace = trimmed(environment.get("RUNPOD_ENDPOINT_ID", "")) or "local"
        try:
            return cls.model_validate({"cache_namespace": namespace} | values)
        except ValidationError as error:
            raise SettingsError(described(error)) from None


def set_variables(environment: Mapping[str, str], fields: Iterable[str]) -> dict[str, str]:
    """The trimmed values of the variables that belong to `fields` and are not empty."""
    values = {name: trimmed(environment.get(name.upper(), "")) for name in fields}
    return {name: value for name, value in values.items() if value}


def described(error: ValidationError) -> str:
    """A line for each faulty variable: its name and what is right, without its value."""
    return "\n".join(dict.fromkeys(_line(detail) for detail in error.errors(include_input=False, include_url=False)))


def _line(detail: Mapping[str, Any]) -> str:
    name = str(detail["loc"][0]).upper() if detail["loc"] else ""
    context = detail.get("ctx", {})
    what = context.get("error") or MENDS.get(detail["type"], "").format_map(context) or detail["msg"]
    return f"{name}: {what}" if name else str(what)


MENDS: Final = {  # pydantic's findings in words; the rest are its own
    "int_parsing": "must be a whole number, without a unit",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number, without a unit",
    "bool_parsing": "must be true or false",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def default_cache_folder() -> Path:
    """What this machine keeps between runs, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flux-engine"
