"""What the server says of its requests: counted for Prometheus, logged, traced."""

from .choosing import metrics_from, telemetry_from
from .metrics import Metrics

__all__ = ["Metrics", "metrics_from", "telemetry_from"]
