"""Figures for Prometheus: requests, their time, what waits, how much galleries hold."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reidkit.web.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """The figures of one process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("reid_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "reid_request_seconds",
            "Seconds from a request to its answer.",
            ("route",),
            registry=self._registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self._registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: asked before galleries are open, Prometheus would take figures for it."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What is read when it is asked for."""
        waiting = GaugeMetricFamily("reid_waiting", "Pictures that wait to be embedded.", labels=("gallery",))
        items = GaugeMetricFamily("reid_items", "Items of a gallery.", labels=("gallery",))
        readable = GaugeMetricFamily("reid_readable", "Whether a gallery can be read.", labels=("gallery",))
        for name, served in self._service.served.items():
            readable.add_metric((name,), served.is_readable())
            if not served.is_readable():
                continue
            waiting.add_metric((name,), served.num_waiting)
            items.add_metric((name,), served.num_items)
        yield readable
        yield waiting
        yield items

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self._registry)

    def counted(self, app: ASGIApp) -> ASGIApp:
        """A layer of an application that counts its requests, by route and not by address."""

        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            started, status = time.perf_counter(), 500

            async def sending(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, sending)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._requests.labels(method, route, status).inc()
                self._seconds.labels(route).observe(time.perf_counter() - started)

        return layer
