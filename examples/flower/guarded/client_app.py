"""The clients: honest ones train, attackers send something else."""

from __future__ import annotations

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import client_data, make_model, test, train

app = ClientApp()
State = dict[str, torch.Tensor]


def attack_of(client: int, context: Context) -> str:
    """What a client does; "" if it is honest."""
    names = [name.strip() for name in str(context.run_config["attacks"]).split(",")]
    return names[client] if client < len(names) else ""


def trained(client: int, start: State, context: Context) -> tuple[State, float]:
    """The parameters and loss of honest training."""
    config = context.run_config
    model = make_model()
    model.load_state_dict(start)
    data = client_data(client, int(context.node_config["num-partitions"]), int(config["seed"]))
    loss = train(model, data, int(config["epochs"]), float(config["lr"]))
    return model.state_dict(), loss


def sign_flip(own: State, start: State, context: Context) -> State:
    """The opposite direction, and further."""
    strength = float(context.run_config["strength"])
    return {name: start[name] - strength * (own[name] - start[name]) for name in start}


def lie(own: State, start: State, context: Context) -> State:
    """A little is enough: the mean of the attackers' honest updates, minus z standard deviations."""
    names = str(context.run_config["attacks"]).split(",")
    friends = [trained(client, start, context)[0] for client in range(len(names))]
    z = float(context.run_config["lie-z"])
    stacks = {name: torch.stack([state[name] for state in friends]) for name in start}
    return {name: stack.mean(0) - z * stack.std(0, unbiased=False) for name, stack in stacks.items()}


ATTACKS = {"sign_flip": sign_flip, "lie": lie}


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train, or attack, and reply."""
    torch.set_num_threads(1)
    client = int(context.node_config["partition-id"])
    start = message.content["arrays"].to_torch_state_dict()
    state, loss = trained(client, start, context)
    name = attack_of(client, context)
    if folder := str(context.run_config["truth"]):
        Path(folder, str(context.node_id)).write_text(name or "honest", encoding="utf-8")
    if name:
        state = ATTACKS[name](state, start, context)
    examples = len(client_data(client, int(context.node_config["num-partitions"]))[1])
    metrics = MetricRecord({"num-examples": examples, "train-loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on the client's own images."""
    client, clients = (int(context.node_config[key]) for key in ("partition-id", "num-partitions"))
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    data = client_data(client, clients, int(context.run_config["seed"]))
    loss, accuracy = test(model, data)
    metrics = MetricRecord({"num-examples": len(data[1]), "loss": loss, "accuracy": accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
