"""What gateway and workers must agree on, and what is said where it is wrong."""

from __future__ import annotations

import pytest

from flux_engine.queues.celery import queue_named
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.settings import SettingsError


@pytest.mark.parametrize(
    ("environment", "broker", "records"),
    [
        ({"REDIS_URL": "redis://r:6379/0"}, "redis://r:6379/0", "redis://r:6379/0"),
        ({"REDIS_URL": "unix:///run/r.sock"}, "redis+socket:///run/r.sock", "unix:///run/r.sock"),
        ({"REDIS_URL": "redis://r/0", "CELERY_BROKER_URL": " redis://b/1\n"}, "redis://b/1", "redis://r/0"),
        ({"CELERY_BROKER_URL": "redis+socket:///b.sock"}, "redis+socket:///b.sock", "unix:///b.sock"),
    ],
)
def test_where_the_broker_and_the_records_are(environment: dict[str, str], broker: str, records: str) -> None:
    settings = CelerySettings.from_environment(environment)
    assert (settings.broker_url, settings.records_url) == (broker, records)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "REDIS_URL"),
        ({"CELERY_BROKER_URL": "amqp://guest@host"}, "CELERY_BROKER_URL"),
        ({"REDIS_URL": "redis://r", "CELERY_BROKER_URL": "redis://b:port/0"}, "CELERY_BROKER_URL"),
        ({"REDIS_URL": "redis://r", "CELERY_BROKER_URL": "redis://b/zero"}, "CELERY_BROKER_URL"),
        ({"REDIS_URL": "redis://r", "CELERY_BROKER_URL": "redis://b/0?virtual_host=3"}, "CELERY_BROKER_URL"),
        ({"REDIS_URL": "redis://r", "CELERY_BROKER_URL": "redis+socket://"}, "CELERY_BROKER_URL"),
        ({"REDIS_URL": "redis://r", "CELERY_QUEUE": "two words"}, "CELERY_QUEUE"),
        ({"REDIS_URL": "redis://r", "CELERY_QUEUE_PER_MODEL": "perhaps"}, "CELERY_QUEUE_PER_MODEL"),
        ({"REDIS_URL": "redis://r", "CELERY_LEASE_SECONDS": "1"}, "CELERY_LEASE_SECONDS"),
        ({"REDIS_URL": "redis://r", "CELERY_FOLDER": "/dev/null"}, "CELERY_FOLDER"),
    ],
)
def test_a_faulty_variable_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        CelerySettings.from_environment(environment)


@pytest.mark.parametrize(
    ("written", "read"), [("true", True), ("False", False), ("on", True), ("off", False), (" ", False)]
)
def test_a_switch_is_written_as_the_page_of_settings_has_it(written: str, read: bool) -> None:
    settings = CelerySettings.from_environment({"REDIS_URL": "redis://r", "CELERY_QUEUE_PER_MODEL": written})
    assert settings.celery_queue_per_model is read


@pytest.mark.parametrize(
    ("model", "queue"),
    [
        ("FLUX.1-dev", "flux.flux-1-dev"),
        ("black-forest-labs/FLUX.1-dev", "flux.flux-1-dev"),
        ("../../etc", "flux.etc"),
        ("", "flux"),
        (None, "flux"),
    ],
)
def test_a_queue_for_each_model(model: str | None, queue: str) -> None:
    assert queue_named("flux", model) == queue
