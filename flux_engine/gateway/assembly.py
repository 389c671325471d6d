"""A gateway from its settings: every room with its real parts, opened in order and closed in reverse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis

from flux_engine.cache.lua import Terms
from flux_engine.cache.manager import CacheManager, server_of
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.asking import Asking
from flux_engine.gateway.capacity import Capacity
from flux_engine.gateway.gateway import Gateway, running
from flux_engine.gateway.limits.line import FairLine, LineTerms
from flux_engine.gateway.limits.manager import LimitsManager, LimitTerms
from flux_engine.gateway.offer import Offers
from flux_engine.gateway.redis_pool import connect
from flux_engine.gateway.routes.answer import described
from flux_engine.gateway.security.manager import SecurityManager
from flux_engine.gateway.security.secret import gateway_secret
from flux_engine.gateway.security.terms import SecurityTerms
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.cancellation import Cancellation
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.events import EventHub
from flux_engine.gateway.tasks.hits import Hits
from flux_engine.gateway.tasks.intake import Intake
from flux_engine.gateway.tasks.kept import KeptInputs
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.look import Look
from flux_engine.gateway.tasks.named import NamedInputs
from flux_engine.gateway.tasks.outcomes import Outcomes
from flux_engine.gateway.tasks.pace import Pace
from flux_engine.gateway.tasks.results import Results
from flux_engine.gateway.tasks.submit import Dispatcher
from flux_engine.gateway.tasks.sweep import Sweep
from flux_engine.gateway.watching.metrics import GatewayMetrics
from flux_engine.gateway.watching.tracing import tracer_provider
from flux_engine.gateway.webhooks.delivery_log import DeliveryLog
from flux_engine.gateway.webhooks.manager import WebhookManager
from flux_engine.net.fetch import Fetcher
from flux_engine.net.post import Poster
from flux_engine.queues.job_queue import JobQueue
from flux_engine.queues.runpod import RunPodQueue
from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import bucket_from_settings
from flux_engine.results.folder import FolderStore
from flux_engine.results.store import ResultStore
from flux_engine.settings import SettingsError, default_cache_folder

LEAST_IN_FLIGHT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What holds connections."""

    redis: Redis
    link: RedisLink
    cache: CacheManager
    queue: JobQueue
    results: Results
    security: SecurityManager
    limits: LimitsManager
    secret: bytes
    tracing: TracerProvider


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, *, pace: Pace | None = None) -> AsyncIterator[Gateway]:
    """Raises SettingsError and NotConfigured where it cannot start; CacheAway where Redis does not come."""
    async with AsyncExitStack() as stack:
        opened = await _open(settings, stack)
        gateway = _assembled(settings, opened, pace or Pace())
        await stack.enter_async_context(running(gateway, opened.cache.notices))
        yield gateway


async def _open(settings: GatewaySettings, stack: AsyncExitStack) -> _Opened:
    """Connect, in order; `stack` closes all of it in reverse."""
    server = server_of(settings.shared, cache_folder=default_cache_folder())
    url = await server.url()
    stack.callback(server.close)
    redis = connect(url)
    stack.push_async_callback(redis.aclose)
    link = RedisLink(RemoteServer(url))
    stack.push_async_callback(link.close)
    terms = Terms(entry_s=settings.shared.cache_ttl_seconds)
    cache = CacheManager(RemoteServer(url), namespace=settings.namespace, terms=terms)
    stack.push_async_callback(cache.close)
    queue = _queue(settings)
    stack.push_async_callback(queue.close)
    results = Results(_store(settings))
    stack.push_async_callback(results.close)
    root = settings.redis_root
    security = await SecurityManager.open(_security_terms(settings), link, root=root, fetcher=Fetcher())
    stack.push_async_callback(security.close)
    limits = LimitsManager(link, _limit_terms(settings), root=root)
    stack.push_async_callback(limits.close)
    tracing = tracer_provider(os.environ)
    stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
    secret = await gateway_secret(settings.gateway_secret, link, root=root)
    return _Opened(
        redis=redis,
        link=link,
        cache=cache,
        queue=queue,
        results=results,
        security=security,
        limits=limits,
        secret=secret,
        tracing=tracing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What several steps of a task use."""

    ledger: Ledger
    line: FairLine
    capacity: Capacity
    offers: Offers
    hits: Hits
    kept: KeptInputs
    webhooks: WebhookManager
    metrics: GatewayMetrics
    pace: Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """What takes a task from its request to its end."""

    intake: Intake
    dispatcher: Dispatcher
    sweep: Sweep
    endings: Endings
    cancellation: Cancellation


def _assembled(settings: GatewaySettings, opened: _Opened, pace: Pace) -> Gateway:
    """The rooms on what is open. Begins nothing."""
    poster = Poster(allow_private=settings.webhook_private_addresses == "on")
    shared = _shared(settings, opened, poster, pace)
    steps = _steps(settings, opened, shared)
    return Gateway(
        settings=settings,
        redis=opened.redis,
        queue=opened.queue,
        ledger=shared.ledger,
        hub=EventHub(opened.redis, shared.ledger),
        results=opened.results,
        offers=shared.offers,
        asking=Asking(shared.offers, shared.hits, opened.cache, settings),
        capacity=shared.capacity,
        intake=steps.intake,
        sweep=steps.sweep,
        dispatcher=steps.dispatcher,
        endings=steps.endings,
        cancellation=steps.cancellation,
        security=opened.security,
        limits=opened.limits,
        line=shared.line,
        webhooks=shared.webhooks,
        metrics=shared.metrics,
        tracing=opened.tracing,
        poster=poster,
    )


def _shared(settings: GatewaySettings, opened: _Opened, poster: Poster, pace: Pace) -> _Shared:
    root, metrics, capacity = settings.redis_root, GatewayMetrics(), Capacity(opened.queue)
    offers = Offers(opened.cache.notices, settings)
    webhooks = WebhookManager(
        DeliveryLog(opened.link, root=root),
        poster,
        secret=opened.secret,
        view=_view(settings),
        on_attempt=metrics.webhook_sent,
    )
    ledger = Ledger(opened.redis, namespace=settings.namespace, keep_s=settings.task_ttl_seconds)
    return _Shared(
        ledger=ledger,
        line=FairLine(opened.link, _line_terms(settings, capacity), root=root),
        capacity=capacity,
        offers=offers,
        hits=Hits(
            opened.cache,
            opened.cache.notices,
            offers=offers,
            results=opened.results,
            gpu_price_per_hour=settings.shared.gpu_price_per_hour,
        ),
        kept=KeptInputs(opened.results.store, note=ledger.loose.note),
        webhooks=webhooks,
        metrics=metrics,
        pace=pace,
    )


def _steps(settings: GatewaySettings, opened: _Opened, shared: _Shared) -> _Steps:
    ledger, queue, line, kept, pace = shared.ledger, opened.queue, shared.line, shared.kept, shared.pace
    endings = Endings(
        ledger,
        limits=opened.limits,
        line=line,
        webhooks=shared.webhooks,
        results=opened.results,
        kept=kept,
        on_end=shared.metrics.task_changed,
    )
    dispatcher = Dispatcher(ledger, line, queue, settings, finish=endings.finish, kept=kept, first_look_s=pace.least)
    endings.on_freed = dispatcher.kick
    cancellation = Cancellation(ledger, queue, endings)
    intake = Intake(
        ledger,
        offers=shared.offers,
        hits=shared.hits,
        named=NamedInputs(Fetcher()),
        kept=kept,
        limits=opened.limits,
        line=line,
        dispatcher=dispatcher,
        endings=endings,
        store_has_urls=settings.shared.has_bucket,
    )
    look = Look(
        ledger,
        queue,
        dispatcher=dispatcher,
        endings=endings,
        cancellation=cancellation,
        outcomes=Outcomes(ledger, endings, cache=opened.cache, results=opened.results, hits=shared.hits),
        line=line,
        webhooks=shared.webhooks,
        settings=settings,
        capacity=shared.capacity,
        pace=pace,
    )
    sweep = Sweep(ledger, look, line=line, endings=endings, rates=queue.rates, pace=pace)
    return _Steps(intake=intake, dispatcher=dispatcher, sweep=sweep, endings=endings, cancellation=cancellation)


def _view(settings: GatewaySettings) -> Callable[[Task], Mapping[str, Any]]:
    """What a webhook says of a task: what its status says, with URLs where the gateway knows its own."""
    base, keep_s = settings.gateway_public_url, settings.task_ttl_seconds
    return Task.public if base is None else lambda task: described(task, base, keep_s=keep_s)


def _queue(settings: GatewaySettings) -> JobQueue:
    if settings.celery is not None:
        from flux_engine.queues.celery import CeleryQueue  # takes half a second to import

        return CeleryQueue(settings.celery)
    if settings.runpod_endpoint_id is None or settings.runpod_api_key is None:
        raise SettingsError("RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY must be set: they name the queue of the workers")
    return RunPodQueue(
        settings.runpod_endpoint_id,
        api_key=settings.runpod_api_key.get_secret_value(),
        base_url=settings.runpod_endpoint_base_url,
    )


def _store(settings: GatewaySettings) -> ResultStore:
    if settings.shared.has_bucket:
        return BucketStore(bucket_from_settings(settings.shared))
    folder = settings.gateway_data or default_cache_folder() / "gateway"
    return FolderStore(folder / "results", has_urls=False, max_bytes=settings.gateway_data_bytes)


def _security_terms(settings: GatewaySettings) -> SecurityTerms:
    return SecurityTerms(
        secret=settings.gateway_secret,
        algorithm=settings.jwt_algorithm,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        jwt_secret=settings.jwt_secret,
        jwt_key_file=settings.jwt_key_file,
        jwks_url=settings.jwks_url,
    )


def _limit_terms(settings: GatewaySettings) -> LimitTerms:
    return LimitTerms(
        requests_per_minute=settings.max_requests_per_minute,
        work_per_minute=settings.max_work_per_minute,
        work_per_day=settings.max_work_per_day,
    )


def _line_terms(settings: GatewaySettings, capacity: Capacity) -> LineTerms:
    """One more in flight than there are workers, so that none waits for its next job and no user's tasks fill the
    queue before another's."""
    return LineTerms(
        in_flight_per_user=settings.max_tasks_in_flight_per_user,
        waiting_per_user=settings.max_tasks_waiting_per_user,
        in_flight=lambda: max(capacity.workers() + 1, LEAST_IN_FLIGHT),
    )
