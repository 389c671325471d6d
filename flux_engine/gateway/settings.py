"""Every environment variable that the gateway reads, once, as typed values.

What it shares with the workers (bucket, Redis, namespace, model, prices) is read by the worker's own Settings, so that
one set of variables describes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from flux_engine.settings import Settings, SettingsError
from flux_engine.units import GIB

RUNPOD_URL: Final = "https://api.runpod.ai/v2"


def _base_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]


class GatewaySettings(BaseModel):
    """The gateway's configuration. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - a service in a container
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one")
    gateway_public_url: BaseUrl | None = Field(
        None, description="The gateway's URL as clients and the queue reach it; by default as the request names it"
    )
    gateway_docs: Literal["on", "off"] = Field("on", description="`off` hides /docs and /openapi.json")

    runpod_endpoint_id: str | None = Field(None, description="RunPod endpoint that jobs are sent to")
    runpod_api_key: SecretStr | None = Field(None, description="Key of that endpoint; clients never see it")
    runpod_endpoint_base_url: BaseUrl = Field(RUNPOD_URL, description="Where RunPod's API is")

    gateway_data: Path | None = Field(
        None,
        description="Folder for results without a bucket; by default in the user's cache. Share it between replicas",
    )
    gateway_data_bytes: int = Field(8 * GIB, ge=1, description="Bound of that folder; the results used longest ago go")
    gateway_max_body_bytes: int = Field(9_500_000, ge=1024, description="Largest request; RunPod takes 10 MB")
    task_ttl_seconds: int = Field(604_800, ge=60, description="How long a finished task and its result are kept")
    task_timeout_seconds: int = Field(
        3_600, ge=10, description="After this long a task that no worker finishes fails; `deadline_seconds` shortens it"
    )
    task_max_attempts: int = Field(5, ge=1, le=50, description="How often a task that the queue lost is submitted")
    max_streams_per_user: int = Field(100, ge=1, description="Event streams that a user may hold open on one replica")

    shared: Settings = Field(default_factory=lambda: Settings.from_environment({}), exclude=True)

    @property
    def namespace(self) -> str:
        """What the keys in Redis begin with: the workers' namespace."""
        return self.shared.cache_namespace or "local"

    @classmethod
    def variables(cls) -> list[str]:
        """The names of the gateway's own variables."""
        return [name.upper() for name in cls.model_fields if name != "shared"]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables of `environment`; raises SettingsError with a line for each faulty variable."""
        names = [name for name in cls.model_fields if name != "shared"]
        values: dict[str, object] = {n: environment[n.upper()].strip() for n in names if environment.get(n.upper())}
        values["shared"] = Settings.from_environment(environment)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [f"{str(e['loc'][0]).upper() if e['loc'] else 'settings'}: {e['msg']}" for e in error.errors()]
            raise SettingsError("\n".join(lines)) from None
