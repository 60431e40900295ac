"""The server: FedAvg, with a guard before it unless ``guard=false``."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

import fedguard
from fedguard.flower import GuardedStrategy

from .task import make_model, server_data, test

app = ServerApp()


def guarded(strategy: Strategy, context: Context) -> Strategy:
    """DnC scores every update; a client that is a far outlier ``strikes`` times is banned."""
    config = context.run_config
    guard = fedguard.Guard(
        fedguard.make_detector("dnc", num_malicious=3),
        fedguard.make_policy("ban", strikes=int(config["strikes"]), rule={"name": "mad", "k": 8.0}),
    )
    server = fedguard.Server(seed=int(config["seed"]))
    state, identity = str(config["state"]) or None, str(config["identity"])
    return GuardedStrategy(strategy, guard, server=server, state=state, identity=identity, per_client=False)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation and print the accuracy of the model."""
    config = context.run_config
    seed, nodes = int(config["seed"]), int(config["min-nodes"])
    held_back = server_data(seed)
    model = make_model(seed)

    def measure(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = test(model, held_back)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    strategy: Strategy = FedAvg(min_train_nodes=nodes, min_available_nodes=nodes, fraction_evaluate=0.0)
    if config["guard"]:
        strategy = guarded(strategy, context)
    result = strategy.start(
        grid, ArrayRecord(model.state_dict()), num_rounds=int(config["rounds"]), evaluate_fn=measure
    )
    last = max(result.evaluate_metrics_serverapp)
    accuracy = result.evaluate_metrics_serverapp[last]["accuracy"]
    print(f"accuracy after {last} rounds: {accuracy:.3f}", flush=True)
