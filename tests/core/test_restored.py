"""A state that does not fit is refused as a whole, even where only its last part is wrong."""

import pytest
import torch

from fedguard import Guard, Round, make_detector
from fedguard.core.errors import ParameterError


def judged(seed):
    guard = Guard(make_detector("foolsgold"))
    guard.process(Round(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)), index=0))
    return guard


@pytest.mark.parametrize("last", [-1, True, 0.0, "0"])
def test_a_wrong_last_part_leaves_the_first_parts_unchanged(last):
    guard, other = judged(0), judged(1)
    before = guard.state_dict()
    with pytest.raises(ParameterError, match="a count belongs"):
        guard.load_state_dict({**other.state_dict(), "last": last})
    after, foreign = guard.state_dict(), other.state_dict()
    histories = [str(state["detectors"]) for state in (before, after, foreign)]
    assert histories[0] == histories[1] != histories[2]
    assert after["ledger"] == before["ledger"]
    guard.load_state_dict(foreign)
    assert str(guard.state_dict()["detectors"]) == histories[2]
