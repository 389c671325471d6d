"""Every environment variable that the gateway reads, once, as typed values.

What it shares with the workers (bucket, Redis, namespace, model, prices) is read by the worker's own Settings, so that
one set of variables describes both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from flux_engine.gateway.security.secret import MIN_SECRET_BYTES
from flux_engine.job.written.bucket_fields import filled_in
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.settings import A_DECADE_S, Folder, Line, Secret, Settings, SettingsError, described, set_variables
from flux_engine.units import GIB

PARTS: Final = ("shared", "celery")  # read by settings of their own
RUNPOD_URL: Final = "https://api.runpod.ai/v2"


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_url = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not value.startswith(("http://", "https://")) or not BASE_URL.fullmatch(value):
        raise ValueError("must begin with http:// or https:// and a host, without blanks, `?` and `#`")
    return value.rstrip("/")


def _https_url(value: str) -> str:
    if not value.startswith("https://") or not value.isprintable() or " " in value:
        raise ValueError("must be an https URL")
    return value


def _endpoint_id(value: str) -> str:
    if not ENDPOINT_ID.fullmatch(value):
        raise ValueError("must be the endpoint's id alone, such as abc123def456ab")
    return value


def _long_secret(value: SecretStr) -> SecretStr:
    if len(filled_in(value.get_secret_value()).encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must be {MIN_SECRET_BYTES} bytes or more")
    return value


def _on_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(ORIGIN.fullmatch(origin) for origin in value):
        raise ValueError("must be origins such as https://app.example or http://localhost:3000, or *")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ip_network(network)
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, comma-separated") from None
    return value


ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
BASE_URL: Final = re.compile(r"[!\"$->@-~]+")  # ASCII without blanks, `#` and `?`
ENDPOINT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOST: Final = 10**12  # of whatever is counted: Redis counts in 64 bits, work in thousandths
MOST_BYTES: Final = 1024**2 * GIB
BaseUrl = Annotated[str, AfterValidator(_base_url)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
EndpointId = Annotated[str, AfterValidator(_endpoint_id)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_on_commas), AfterValidator(_origins)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_on_commas), AfterValidator(_networks)]
LongSecret = Annotated[SecretStr, AfterValidator(_long_secret)]


class GatewaySettings(BaseModel):
    """The gateway's configuration. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: Line = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - a service in a container
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one")
    gateway_public_url: BaseUrl | None = Field(
        None, description="The gateway's URL as clients and the queue reach it; by default as the request names it"
    )
    gateway_docs: Literal["on", "off"] = Field("on", description="`off` hides /docs and /openapi.json")

    queue: Literal["runpod", "celery"] = Field(
        "runpod", description="Where jobs go: a RunPod endpoint, or Celery workers on GPUs of one's own"
    )
    runpod_endpoint_id: EndpointId | None = Field(None, description="RunPod endpoint that jobs are sent to")
    runpod_api_key: Secret | None = Field(None, description="Key of that endpoint; clients never see it")
    runpod_endpoint_base_url: BaseUrl = Field(RUNPOD_URL, description="Where RunPod's API is")

    gateway_data: Folder | None = Field(
        None,
        description="Folder for results without a bucket; by default in the user's cache. Share it between replicas",
    )
    gateway_data_bytes: int = Field(
        8 * GIB, ge=1, le=MOST_BYTES, description="Bound of that folder; the results used longest ago go"
    )
    gateway_max_body_bytes: int = Field(
        9_500_000, ge=1024, le=MOST_BYTES, description="Largest request; RunPod takes 10 MB"
    )
    task_ttl_seconds: int = Field(
        604_800, ge=60, le=A_DECADE_S, description="How long a finished task and its result are kept"
    )
    task_timeout_seconds: int = Field(
        3_600,
        ge=10,
        le=A_DECADE_S,
        description="After this long a task that no worker finishes fails; `deadline_seconds` shortens it",
    )
    task_max_attempts: int = Field(5, ge=1, le=50, description="How often a task that the queue lost is submitted")
    max_streams_per_user: int = Field(
        100, ge=1, le=MOST, description="Event streams that a user may hold open on one replica"
    )

    gateway_secret: LongSecret | None = Field(
        None,
        description="32 bytes or more; signs tokens, links and webhooks. Without it Redis keeps a random one",
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = Field("HS256", description="The one algorithm of tokens")
    jwt_secret: LongSecret | None = Field(None, description="HS256: 32 bytes or more, shared with an issuer")
    jwt_key_file: Path | None = Field(None, description="RS256, ES256: a PEM key; a private one also makes tokens")
    jwks_url: HttpsUrl | None = Field(None, description="RS256, ES256: https address of an issuer's public keys")
    jwt_issuer: str = Field("flux-gateway", min_length=1, description="`iss` of every token")
    jwt_audience: str = Field("flux-gateway", min_length=1, description="`aud` of every token")

    max_requests_per_minute: int = Field(6_000, ge=1, le=MOST, description="Requests of a user in any minute")
    max_work_per_minute: int = Field(10_000, ge=1, le=MOST, description="Work that a user may ask for in any minute")
    max_work_per_day: int = Field(1_000_000, ge=1, le=MOST, description="Work that a user may ask for in any 24 hours")
    max_tasks_in_flight_per_user: int = Field(
        8, ge=1, le=MOST, description="Tasks of a user with the queue at once; more wait in a fair line"
    )
    max_tasks_waiting_per_user: int = Field(
        2_000, ge=1, le=MOST, description="Tasks of a user that may wait in the line"
    )

    cors_origins: Origins = Field(
        (), description="Origins whose pages may call, such as https://app.example, comma-separated; `*` is any"
    )
    trusted_proxies: Networks = Field(
        (), description="Addresses or networks of proxies in front, whose X-Forwarded-For is believed"
    )
    gateway_metrics: Literal["open", "admin", "off"] = Field(
        "open", description="Who reads /metrics: everybody, keys with the scope `admin`, or nobody"
    )
    webhook_private_addresses: Literal["on", "off"] = Field(
        "off", description="`on` lets webhooks go to http and to private addresses, where all clients are trusted"
    )

    celery: CelerySettings | None = Field(None, exclude=True)  # with QUEUE=celery
    shared: Settings = Field(default_factory=lambda: Settings.from_environment({}), exclude=True)

    @property
    def namespace(self) -> str:
        """What the keys in Redis begin with: the workers' namespace."""
        return self.shared.cache_namespace or "local"

    @property
    def redis_root(self) -> str:
        """What the keys of the gateway's own begin with in Redis."""
        return f"flux:{quote(self.namespace, safe='')}:gateway"

    @classmethod
    def variables(cls) -> list[str]:
        """The names of the gateway's own variables."""
        return [name.upper() for name in cls.model_fields if name not in PARTS]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables of `environment`; raises SettingsError with a line for each faulty variable."""
        names = [name for name in cls.model_fields if name not in PARTS]
        values: dict[str, object] = {**set_variables(environment, names)}
        values["shared"] = Settings.from_environment(environment)
        if values.get("queue") == "celery":
            values["celery"] = CelerySettings.from_environment(environment)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(described(error)) from None
