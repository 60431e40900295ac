"""Flower's simulation of a federation of ``speed_end_to_end.py``: FedAvg, one step per client and round.

Starting Ray takes seconds, so a round's time is the difference between a longer and a shorter run.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from end_to_end_sides import BATCH, LR, cnn, logistic
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

SHORT, LONG = 2, 12
MODELS = {"CNN": cnn, "logistic regression": logistic}


def available() -> bool:
    """Whether Flower and Ray are installed."""
    try:
        import flwr  # noqa: F401
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


def seconds_per_round(model: str, clients: int) -> float:
    """Wall time of a round, all cores for Ray's workers."""
    return (_run(model, clients, LONG) - _run(model, clients, SHORT)) / (LONG - SHORT)


def _run(model: str, clients: int, rounds: int) -> float:
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    took: list[float] = []
    run_simulation(
        server_app=_server(model, rounds, took),
        client_app=_client(model),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return took[0]


def _client(name: str) -> Any:
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        model: nn.Module = MODELS[name]()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        inputs, labels = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"num-examples": BATCH}),
            }
        )
        return Message(content=content, reply_to=message)

    return app


def _server(name: str, rounds: int, took: list[float]) -> Any:
    from flwr.app import ArrayRecord, Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0)
        start = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=ArrayRecord(MODELS[name]().state_dict()), num_rounds=rounds)
        took.append(time.perf_counter() - start)

    return app
