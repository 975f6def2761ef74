"""Telemetry of requests: metrics for Prometheus, the access log, and traces."""

from .choosing import metrics_from, telemetry_from
from .metrics import Metrics

__all__ = ["Metrics", "metrics_from", "telemetry_from"]
