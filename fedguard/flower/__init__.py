"""FedGuard before any Flower strategy: ``GuardedStrategy(FedAvg(), guard)``; needs the extra "flower"."""

from __future__ import annotations

try:
    import flwr.serverapp  # noqa: F401 - only to say what is missing
except ImportError as error:
    raise ImportError(f'fedguard.flower needs Flower: pip install "fedguard[flower]" ({error})') from error

from .strategy import GuardedStrategy

__all__ = ["GuardedStrategy"]
