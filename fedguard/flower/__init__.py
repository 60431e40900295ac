"""Guard any Flower strategy: ``GuardedStrategy(FedAvg(), guard)``. Needs the extra "flower".

``load_adapters`` and ``save_adapters`` read and write the folders of peft, for federations of LoRA adapters.
"""

from __future__ import annotations

try:
    import flwr.serverapp  # noqa: F401 - imported only to report that it is missing
except ImportError as error:
    raise ImportError(f'fedguard.flower needs Flower: pip install "fedguard[flower]" ({error})') from error

from ..exchange.adapter_files import load_adapters, save_adapters
from .strategy import GuardedStrategy

__all__ = ["GuardedStrategy", "load_adapters", "save_adapters"]
