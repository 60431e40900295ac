"""Six silos fine-tune a language model with LoRA; one attacks, and FedGuard is in front of FedAvg."""

from fedguard.simulation import vision  # noqa: F401 - before peft, which imports torchvision, whole or not
