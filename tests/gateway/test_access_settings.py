"""The settings of who may come in: what is taken, and what stops the gateway at start with a line that says why."""

from __future__ import annotations

import pytest

from flux_engine.gateway.settings import GatewaySettings
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.settings import SettingsError


def test_lists_are_split_on_commas() -> None:
    settings = GatewaySettings.from_environment(
        {"CORS_ORIGINS": "https://app.example, http://localhost:3000", "TRUSTED_PROXIES": "10.0.0.0/8,::1"}
    )
    assert settings.cors_origins == ("https://app.example", "http://localhost:3000")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")


def test_by_default_nobody_calls_from_elsewhere_and_no_proxy_is_believed() -> None:
    settings = GatewaySettings.from_environment({})
    assert (settings.cors_origins, settings.trusted_proxies, settings.webhook_private_addresses) == ((), (), "off")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "null"),
        ("TRUSTED_PROXIES", "ingress"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("GATEWAY_SECRET", "short"),
        ("JWT_SECRET", "short"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "HS512"),
        ("MAX_WORK_PER_MINUTE", "0"),
        ("GATEWAY_METRICS", "yes"),
        ("MAX_REQUESTS_PER_MINUTE", "9" * 25),
        ("TASK_TTL_SECONDS", "9" * 17),
        ("GATEWAY_DATA", "/dev/null"),
        ("GATEWAY_PUBLIC_URL", "https://"),
        ("GATEWAY_PUBLIC_URL", "https://flux.example/?a=b"),
        ("RUNPOD_ENDPOINT_BASE_URL", "https://[api.runpod.ai"),
        ("RUNPOD_ENDPOINT_ID", "https://api.runpod.ai/v2/abc"),
        ("RUNPOD_API_KEY", "rpa_short\nrpa_short"),
        ("RUNPOD_API_KEY", "{{ RUNPOD_SECRET_short }}"),
        ("GATEWAY_SECRET", "{{ RUNPOD_SECRET_short_gateway_secret }}"),
        ("JWKS_URL", "http://issuer.example/jwks"),
    ],
)
def test_a_faulty_one_is_named_and_not_quoted_where_it_is_a_secret(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as error:
        GatewaySettings.from_environment({name: value})
    assert "short" not in str(error.value)


@pytest.mark.parametrize("name", sorted(set(GatewaySettings.variables()) | set(CelerySettings.variables())))
def test_nothing_but_blanks_counts_as_unset(name: str) -> None:
    redis = {"REDIS_URL": "redis://localhost", "QUEUE": "celery"}
    blank = {name: " \n"}
    assert GatewaySettings.from_environment(blank) == GatewaySettings.from_environment({})
    celery = GatewaySettings.from_environment(redis | blank | {"QUEUE": "celery"}).celery
    assert celery == GatewaySettings.from_environment(redis).celery


def test_what_surrounds_a_value_is_not_part_of_it() -> None:
    settings = GatewaySettings.from_environment({"PORT": " 80\n", "RUNPOD_API_KEY": "\ufeffrpa_key\r\n"})
    assert settings.port == 80
    assert settings.runpod_api_key is not None
    assert settings.runpod_api_key.get_secret_value() == "rpa_key"
