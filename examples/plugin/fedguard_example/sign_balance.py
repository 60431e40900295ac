"""Sign balance: clients whose update has the opposite sign of most others."""

import torch

from fedguard import Card, Detector, Scores


class SignBalance(Detector):
    """s_i = the share of coordinates in which client i's sign is not the majority's; suspect above ``limit``.

    Args:
        limit: the largest accepted share.
    """

    card = Card("sign_balance", "disagreement with the majority's signs", "nobody, 2026")
    plant = "backwards"  # noise disagrees in half of the coordinates, and so do honest non-IID clients

    def __init__(self, limit: float = 0.5) -> None:
        self.limit = limit

    def score(self, round):
        """Count disagreements."""
        signs = round.updates.matrix.sign()
        majority = signs.sum(0).sign()
        decided = (majority != 0).sum().clamp(min=1)
        values = (((signs != majority) & (majority != 0)).sum(1) / decided).double().numpy()
        return Scores(values, values > self.limit, f"disagrees with the majority's signs in {self.limit:.0%}")


if __name__ == "__main__":
    print(SignBalance()(torch.randn(5, 100)).values)
