"""A round's clients beside pseudo-clients: the server's part of the recommended detector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.geometry.updates import Updates

from ._calibration import Calibration, Measured, Pseudo
from ._explained import Cones, Explained
from ._label_gradients import label_gradients
from ._pseudo_clients import generic_mixes, sample_counts, train_pseudo_clients
from ._ranking import by_id

#: The most numbers in the gradients of all pairs of classes, 1 GB.
MOST_FLOATS = 2**28


def beside_pseudo_clients(
    round: Round, calibration: Calibration, samples: int, trusted: NDArray[np.bool_]
) -> Measured | None:
    """Train pseudo-clients, and compare.

    Args:
        round: its server needs model, training settings, validation data, and the global model; its root
            data train pseudo-clients, or the validation data if there are none.
        calibration: what is known from earlier rounds.
        samples: the most validation samples that are used.
        trusted: (n,) the clients whose values count as ordinary.

    Returns:
        The signals in the round's order; None if something is missing, if an output of the model has no
        validation sample, or if the model is too large (``MOST_FLOATS``).
    """
    server, start = round.server, round.global_params
    if server is None or server.model is None or server.training is None or start is None:
        return None
    if server.validation is None:
        return None
    data = LabeledData(server.validation.inputs[:samples], server.validation.labels[:samples])
    root = server.root if server.root is not None and len(server.root.labels) else data
    if len(torch.unique(data.labels)) ** 2 * round.updates.d > MOST_FLOATS:
        return None
    spanned = label_gradients(server.model, start, data)
    if spanned is None or int(root.labels.max()) >= spanned.classes:
        return None
    cones = Cones(spanned)
    order = np.array(by_id(round.client_ids))  # pseudo-clients must not depend on the round's order
    ids = [round.client_ids[i] for i in order]
    found = Explained(*(part[order] for part in cones.explain(round.updates)))
    mixes, due = calibration.mean_mixes(ids, found.mixes), calibration.due(ids)
    counts, drawn = sample_counts(round, root)[order], generic_mixes(round, cones.classes)

    typical = np.full(len(drawn), int(np.median(counts)))
    generic_keys, matched_keys = [f"generic {k}" for k in range(len(drawn))], [f"like {ids[i]}" for i in due]
    generic = train_pseudo_clients(round, root, drawn, typical, generic_keys)
    matched = train_pseudo_clients(round, root, mixes[due], counts[due], matched_keys)
    updates = torch.cat([generic, matched])
    finite = torch.nan_to_num(updates, nan=0.0, posinf=0.0, neginf=0.0)  # their training may diverge
    values = cones.explain(Updates(finite)).values
    measured = calibration.measure(
        ids,
        found,
        round.num_examples[order],
        mixes,
        Pseudo(drawn, values[: len(drawn)]),
        Pseudo(mixes[due], values[len(drawn) :]),
        trusted[order],
    )
    back = np.argsort(order)
    return measured._replace(signals={name: values[back] for name, values in measured.signals.items()})
