"""The server: FedAvg of adapters, with a guard before it unless ``guard=false``."""

from __future__ import annotations

import peft
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

import fedguard
from fedguard.flower import GuardedStrategy, save_adapters

from .task import adapters, make_model, server_data, test

app = ServerApp()


def guarded(strategy: Strategy, context: Context) -> Strategy:
    """DnC scores the adapters; a silo that is a far outlier ``strikes`` times is banned."""
    config = context.run_config
    guard = fedguard.Guard(
        fedguard.make_detector("dnc", num_malicious=1),
        fedguard.make_policy("ban", strikes=int(config["strikes"]), rule={"name": "mad", "k": 8.0}),
    )
    state = str(config["state"]) or None
    return GuardedStrategy(strategy, guard, parameters="adapters", state=state, per_client=False)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation, print the accuracy of the model, and save its adapters."""
    config = context.run_config
    nodes = int(config["min-nodes"])
    held_back = server_data()
    model = make_model()

    def measure(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        peft.set_peft_model_state_dict(model, arrays.to_torch_state_dict())
        loss, accuracy = test(model, held_back)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    strategy: Strategy = FedAvg(min_train_nodes=nodes, min_available_nodes=nodes, fraction_evaluate=0.0)
    if config["guard"]:
        strategy = guarded(strategy, context)
    initial = ArrayRecord(adapters(model))  # or ArrayRecord(fedguard.flower.load_adapters("a peft folder"))
    result = strategy.start(grid, initial, num_rounds=int(config["rounds"]), evaluate_fn=measure)
    if folder := str(config["save"]):
        model.peft_config["default"].save_pretrained(folder)
        save_adapters(folder, result.arrays, like=folder)
    last = max(result.evaluate_metrics_serverapp)
    accuracy = result.evaluate_metrics_serverapp[last]["accuracy"]
    print(f"accuracy after {last} rounds: {accuracy:.3f}", flush=True)
