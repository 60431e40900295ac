"""Rounds that an attacker or an accident may cause: each kind has a name and is reproducible from a seed.

:func:`draft` makes the arguments of one round from a seed, and :func:`strategy` does so for hypothesis.
``fedguard.testing.fuzz`` runs guards on any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..training.parameters import flat_parameters
from .hostile_kinds import CLAIMS, GROUPS, KINDS, VALUES, Draft, server_of_everything, some_counts, some_ids

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["CHEAP", "CLIENTS_MAY_SEND", "KINDS", "Draft", "draft", "strategy"]

#: Parameters that make methods cheap enough to run a hundred thousand times.
CHEAP: dict[str, dict[str, Any]] = {
    "sklearn": {"estimator_params": {"n_estimators": 5}},
    "deepsight": {"samples": 20, "seeds": 1},
    "fldetector": {"start": 0, "window": 3},
    "lora_probe": {"probe": {"weight": {"3.bias": [1.0, -2.0, 1.5]}, "bias": 0.3}},  # of this model
}


#: Kinds that a single client can cause; the guard must not refuse the round for them.
CLIENTS_MAY_SEND = frozenset(
    {"ordinary", *VALUES, *CLAIMS} - {n for n in CLAIMS if "text" in n or "few" in n}
)


def draft(
    kinds: Sequence[str] = ("ordinary",), seed: int = 0, index: int = 0, seen: Sequence[Any] = ()
) -> Draft:
    """Draw the arguments of a round of a small federation with a model of 27 parameters.

    Args:
        kinds: names in ``KINDS``; of two in the same group, the later one is used.
        seed: the seed of all random numbers.
        index: the number of the round.
        seen: ids of earlier rounds, some of which return.
    """
    rng = np.random.default_rng(seed)
    chosen = [[name for name in kinds if name in group][-1:] for group in GROUPS]
    kinds = [name for names in chosen for name in names]  # in the order of application
    n, server = int(rng.integers(1, 13)), server_of_everything()
    assert server.model is not None  # noqa: S101 - for the type checker
    start = flat_parameters(server.model)
    result = Draft(
        kinds=tuple(kinds),
        rng=rng,
        updates=(rng.normal(size=len(start)) + rng.normal(size=(n, len(start)))).astype(np.float32),
        client_ids=some_ids(rng, n, seen),
        num_examples=some_counts(rng, n),
        num_steps=None,
        index=index,
        global_params=start + index / 10,
        server=server,
        seen=seen,
    )
    for kind in kinds:
        KINDS[kind](result)
    return result


def strategy() -> SearchStrategy[Draft]:
    """Return a hypothesis strategy for drafts with one or two kinds (``pip install hypothesis``)."""
    from hypothesis import strategies as st

    kinds = st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=2, unique=True)
    return st.builds(draft, kinds, st.integers(0, 2**32 - 1), st.integers(0, 50))
