"""Guard any Flower strategy: ``GuardedStrategy(FedAvg(), guard)``. Needs the extra "flower"."""

from __future__ import annotations

try:
    import flwr.serverapp  # noqa: F401 - imported only to report that it is missing
except ImportError as error:
    raise ImportError(f'fedguard.flower needs Flower: pip install "fedguard[flower]" ({error})') from error

from .strategy import GuardedStrategy

__all__ = ["GuardedStrategy"]
