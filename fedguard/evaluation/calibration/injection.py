"""Attacks injected into recorded rounds: some recorded clients are turned malicious."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...contracts.attack import Attack, UpdateView
from ...contracts.nested import make
from ...contracts.round import Round
from ...core.errors import ConfigError
from ...core.ids import ClientId
from ...core.seeds import generator, numpy_generator
from ...guard import Guard


class Injection:
    """An attack on recorded updates, by the same clients in every round.

    Rounds are recorded, so the attack does not change the rounds after it, as it would in a live federation.

    Args:
        attack: its name, or a mapping of name and parameters.
        clients: the ids to draw the attackers from.
        share: the share of them that attacks, in (0, 0.5].
        seed: the seed of the draw and of the attack.

    Raises:
        ConfigError: the attack acts on training data or needs them: a recording holds updates only.
        ParameterError: a parameter of the attack is wrong.
        RegistryError: there is no such attack.
    """

    def __init__(self, attack: Any, clients: Sequence[ClientId], share: float, seed: int) -> None:
        self.attack = suitable(attack)
        draw = numpy_generator(seed, "injected attackers")
        count = max(1, math.floor(share * len(clients)))
        ordered = sorted(map(str, clients))
        self.attackers = frozenset(ordered[i] for i in draw.choice(len(ordered), count, replace=False))
        if self.attack.kind == "model":  # a backdoor's check is of data, which do not matter here
            self.attack.check((1,), 2, len(clients), count)
        self._seed = seed
        self._first: Tensor | None = None
        self._previous: Tensor | None = None

    def into(self, round: Round, guard: Guard) -> tuple[Round, np.ndarray[Any, np.dtype[np.bool_]]]:
        """The round with the attackers' updates replaced, and (n,) bool, who attacks in it.

        Raises:
            ConfigError: the attack needs the global model, which was not recorded.
        """
        bad = np.array([str(client) in self.attackers for client in round.client_ids])
        if not bad.any() or bad.all():
            return round, np.zeros_like(bad)
        view = self._view(round, bad, guard)
        crafted = self.attack.craft(view)
        if round.global_params is None and not bool(crafted.isfinite().all()):
            raise ConfigError(
                f"attack {self.attack.name} needs the global model, which this recording does not hold"
            )
        self.attack.commit(view, crafted)
        self._previous = view.global_params
        return round.with_updates(_sent(round, bad, crafted)), bad

    def _view(self, round: Round, bad: np.ndarray[Any, np.dtype[np.bool_]], guard: Guard) -> UpdateView:
        """What the attack may see, exactly as it declares."""
        know = self.attack.knowledge
        matrix, own = round.updates.matrix, torch.from_numpy(bad)
        # NaN marks a model that was not recorded: an attack that uses it is found out
        params = round.global_params
        params = torch.full((round.updates.d,), math.nan) if params is None else params
        self._first = params if self._first is None else self._first

        def received(crafted: Tensor) -> tuple[Round, np.ndarray[Any, np.dtype[np.intp]]]:
            whole, place = round.with_updates(_sent(round, bad, crafted)), np.flatnonzero(bad)
            return (whole, place) if "benign_updates" in know else (whole.take(place), np.arange(len(place)))

        return UpdateView(
            index=round.index,
            num_clients=round.n,
            global_params=params,
            previous_params=self._previous,
            initial_params=self._first,
            own_updates=matrix[own],
            generator=generator(self._seed, "injected attack", round.index),
            attack=self.attack.name,
            benign_updates=matrix[~own] if "benign_updates" in know else None,
            aggregator=copy.deepcopy(guard.aggregator) if "aggregator" in know else None,
            defense=copy.deepcopy(guard) if "defense" in know else None,
            received=received if "defense" in know else None,
        )


def suitable(spec: Any) -> Attack:
    """An attack of its own from a spec.

    Raises:
        ConfigError: it acts on training data or needs them.
        ParameterError: a parameter is wrong.
        RegistryError: there is no such attack.
    """
    attack: Attack = copy.deepcopy(make(spec, "attacks", "attack"))
    if attack.kind == "passive" or type(attack).craft is Attack.craft:
        raise ConfigError(
            f"attack {attack.name} does not craft updates from updates, and a recording holds no training "
            "data; use one that does, such as sign_flip or lie"
        )
    if "data" in attack.knowledge:
        raise ConfigError(f"attack {attack.name} needs training data, which a recording does not hold")
    return attack


def _sent(round: Round, bad: np.ndarray[Any, np.dtype[np.bool_]], crafted: Tensor) -> Tensor:
    updates = round.updates.matrix.clone()
    updates[torch.from_numpy(bad)] = crafted.to(updates.dtype)
    return updates
