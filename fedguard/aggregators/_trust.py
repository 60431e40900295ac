"""FLTrust's arithmetic: the server's own update, and each client's cosine to it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.round import Round
from ..core.errors import NeedError
from ..core.threads import single_thread
from ..geometry.updates import Updates
from ..training.local import train_client

#: Needs of both the detector and the aggregator.
NEEDED = frozenset({"model", "root", "training", "global_params"})


def root_update(round: Round) -> Tensor:
    """(d,) g_0: train the global model on the server's root data with the clients' settings.

    Raises:
        NeedError: the model, root data, training settings or global model are missing.
    """
    server, start = round.server, round.global_params
    if (
        server is None
        or server.model is None
        or server.root is None
        or server.training is None
        or start is None
    ):
        raise NeedError("FLTrust needs model, root, training and global_params")
    with single_thread():
        return train_client(
            copy.deepcopy(server.model),
            start,
            server.root,
            server.training,
            server.generator("fltrust", round.index),
        )


def trust_scores(updates: Updates, root: Tensor) -> tuple[NDArray[np.float64], float]:
    """(n,) cos(u_i, g_0) in [−1, 1], 0 if u_i or g_0 is zero or g_0 is not finite; and ‖g_0‖.

    Source: Cao et al., FLTrust, NDSS 2021, §IV-B.
    """
    guide = root.double().to(updates.device)
    products = updates.along(guide)
    scale = updates.norms * guide.norm()
    defined = (scale > 0) & scale.isfinite()  # if root training diverges, no client is trusted
    cosines = torch.where(defined, products / scale, 0.0).clamp(-1, 1)
    return cosines.cpu().numpy(), float(guide.norm())
