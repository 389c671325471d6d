"""The settings of who may come in: what is taken, and what stops the gateway at start with a line that says why."""

from __future__ import annotations

import pytest

from flux_engine.gateway.settings import GatewaySettings
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
        ("JWT_ISSUER", " "),
        ("MAX_WORK_PER_MINUTE", "0"),
        ("GATEWAY_METRICS", "yes"),
    ],
)
def test_a_faulty_one_is_named_and_not_quoted_where_it_is_a_secret(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as error:
        GatewaySettings.from_environment({name: value})
    assert "short" not in str(error.value)
