"""What a federation has learned so far, and how it starts over."""

from __future__ import annotations

from torch import Tensor

from ..training.server_optimizer import ServerOptimizer
from .participation import Mail
from .scaffold import ControlVariates
from .setup import Setup
from .stepwise import Stepwise


class Trajectory(Stepwise):
    """The global model and all that depends on the rounds that led to it.

    Attributes:
        setup: the parts of the federation.
        params: (d,) the global model.
        previous_params: (d,) the one before; the same in the first round.
        statistics: (s,) the global model's BatchNorm statistics; (0,) for models without.
    """

    setup: Setup
    params: Tensor
    previous_params: Tensor
    statistics: Tensor
    _optimizer: ServerOptimizer
    _controls: ControlVariates | None
    _mail: Mail

    def _begin(self, members: int) -> None:
        """Start from the initial model: no momenta, no control variates, nothing on its way.

        A detector may ask for it (``Scores.restart``). Rounds go on counting: the guard keeps its ledger and
        its methods' memory, clients their data, the attack its state.
        """
        cell = self.setup.cell
        self.params = self.previous_params = self.setup.initial
        self.statistics = self.setup.initial_statistics
        held = {"validation", "root", "optimizer"}
        self._optimizer = ServerOptimizer(cell.server.optimizer, **cell.server.model_dump(exclude=held))
        scaffold = cell.training.algorithm == "scaffold"
        self._controls = ControlVariates(len(self.params), members) if scaffold else None
        self._mail = Mail()
