"""What gateway and workers must agree on to meet at one Celery broker, read from the environment of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from flux_engine.settings import Folder, Settings, SettingsError, described, set_variables, usable_redis_url

SWITCH: Final = {"on": True, "true": True, "off": False, "false": False}


def _switch(value: object) -> object:
    if isinstance(value, str) and value.lower() in SWITCH:
        return SWITCH[value.lower()]
    raise ValueError("must be true or false")


def _broker_url(value: SecretStr) -> SecretStr:
    usable_redis_url(SecretStr(_as_redis_writes_it(value)))
    return value


def _as_redis_writes_it(url: SecretStr) -> str:
    """kombu writes `redis+socket://` for redis-py's `unix://`."""
    return url.get_secret_value().replace("redis+socket://", "unix://", 1)


def _first(*urls: SecretStr | None) -> SecretStr:
    for url in urls:
        if url is not None:
            return url
    raise SettingsError("REDIS_URL: needed with Celery, by gateway and workers alike")


class CelerySettings(BaseModel):
    """Field names are the variables' names in lower case; `shared` is what the worker's settings hold already."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    celery_broker_url: Annotated[SecretStr, AfterValidator(_broker_url)] | None = Field(
        None, description="Celery's broker, a Redis server; by default REDIS_URL"
    )
    celery_queue: str = Field(
        "flux", pattern=r"\A[A-Za-z0-9._-]{1,64}\z", description="Name of the queue, on the broker"
    )
    celery_queue_per_model: Annotated[bool, BeforeValidator(_switch)] = Field(
        False,
        validate_default=False,
        description="`true`: jobs that name a model go to the queue `<CELERY_QUEUE>.<model>`; workers take it by `-Q`",
    )
    celery_folder: Folder | None = Field(
        None,
        description="Folder that gateway and workers share, for inputs and results over 1 MB where no bucket is set",
    )
    celery_lease_seconds: int = Field(
        9, ge=3, le=600, description="A worker that says nothing for so long is taken for dead, and its job runs again"
    )
    celery_health_port: int = Field(
        8090, ge=0, le=65_535, description="Port where a worker answers /healthz, /readyz and /metrics; 0: none"
    )
    shared: Settings = Field(exclude=True)

    @property
    def broker_url(self) -> str:
        """As kombu writes it: a unix socket is `redis+socket://`."""
        url = _first(self.celery_broker_url, self.shared.redis_url)
        return url.get_secret_value().replace("unix://", "redis+socket://", 1)

    @property
    def records_url(self) -> str:
        """As redis-py writes it. What gateway and workers say of jobs lies beside the result cache."""
        return _as_redis_writes_it(_first(self.shared.redis_url, self.celery_broker_url))

    @property
    def namespace(self) -> str:
        return self.shared.cache_namespace or "local"

    @classmethod
    def variables(cls) -> list[str]:
        return [name.upper() for name in cls.model_fields if name != "shared"]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises SettingsError with a line for each faulty variable."""
        values: dict[str, object] = {**set_variables(environment, [n for n in cls.model_fields if n != "shared"])}
        values["shared"] = Settings.from_environment(environment)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(described(error)) from None
        _first(settings.shared.redis_url, settings.celery_broker_url)
        return settings
