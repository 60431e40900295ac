"""DLG, deep leakage from gradients: dummy samples whose gradient is the client's."""

from __future__ import annotations

from types import MappingProxyType

import torch

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.passive import Leak, PassiveAttack, Reconstruction, loss_gradient

from ._checks import require_positive


class DLG(PassiveAttack):
    """min_{x, y} ‖∇ℓ(x, softmax(y)) − ∇ℓ‖² by L-BFGS over dummy inputs x and label logits y.

    The search starts at standard normal noise (or at ``Leak.start``). If it reaches NaN, the best earlier
    point counts. The paper uses models with smooth activations; with ReLU it converges less often.

    Args:
        iterations: L-BFGS steps; 300 in the paper.
        lr: step size of L-BFGS; 1 in the paper.
        restarts: the number of starts, of which the best counts; 1 in the paper.

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhu et al., NeurIPS 2019, Algorithm 1.
    """

    card = Card(
        "dlg",
        "samples whose gradient matches the update",
        "Zhu et al., Deep Leakage from Gradients, NeurIPS 2019",
    )

    check_with = MappingProxyType({"iterations": 5})

    def __init__(self, iterations: int = 300, lr: float = 1.0, restarts: int = 1) -> None:
        for name, value in (("iterations", iterations), ("restarts", restarts)):
            if value < 1:
                raise ParameterError(f"dlg: {name} is {value}; use at least 1")
        require_positive("dlg", "lr", lr)
        self.iterations = iterations
        self.lr = lr
        self.restarts = restarts

    def reconstruct(self, leak: Leak) -> Reconstruction:
        """The best of all starts."""
        tries = [self._search(leak, first=k == 0) for k in range(self.restarts)]
        _, inputs, labels = min(tries, key=lambda found: found[0])
        return Reconstruction(inputs, labels)

    def _search(self, leak: Leak, first: bool) -> tuple[float, torch.Tensor, torch.Tensor]:
        if leak.start is not None and first:
            inputs, logits = (part.clone() for part in leak.start)
        else:
            inputs = leak.noise()
            logits = torch.randn(leak.count, leak.num_classes, generator=leak.generator)
        inputs.requires_grad_()
        logits.requires_grad_()
        target = leak.gradient
        optimizer = torch.optim.LBFGS([inputs, logits], lr=self.lr)
        best = (float("inf"), inputs.detach().clone(), logits.detach().argmax(1))

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            distance = (loss_gradient(leak, inputs, logits.softmax(1)) - target).square().sum()
            distance.backward()  # type: ignore[no-untyped-call]
            return distance

        for _ in range(self.iterations):
            before = inputs.detach().clone(), logits.detach().argmax(1)
            value = float(optimizer.step(closure).detach())  # type: ignore[no-untyped-call]  # before it
            if not value < float("inf"):
                break
            if value < best[0]:
                best = (value, *before)
        return best
