"""The silos: honest ones train their adapters, the attacker sends the opposite."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import adapters, make_model, silo_data, train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train, or attack, and reply with the adapters and the head."""
    torch.set_num_threads(1)
    config = context.run_config
    silo, silos = (int(context.node_config[key]) for key in ("partition-id", "num-partitions"))
    start = message.content["arrays"].to_torch_state_dict()
    model = make_model()
    peft.set_peft_model_state_dict(model, start)
    data = silo_data(silo, silos)
    loss = train(model, data, int(config["epochs"]), float(config["lr"]))
    own = adapters(model)
    malicious = silo < int(config["malicious"])
    if malicious:  # the opposite direction, and further
        own = {name: start[name] - float(config["strength"]) * (own[name] - start[name]) for name in own}
    if folder := str(config["truth"]):
        Path(folder, str(context.node_id)).write_text(
            "sign_flip" if malicious else "honest", encoding="utf-8"
        )
    metrics = MetricRecord({"num-examples": len(data[1]), "train-loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(own), "metrics": metrics}), reply_to=message)
