"""AGR-tailored attacks: as far as a known aggregation rule accepts the crafted updates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedguard.aggregators.bulyan import bulyan_selection
from fedguard.aggregators.krum import krum_scores, multi_krum
from fedguard.contracts.attack import Knowledge, UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.round import Round
from fedguard.core.errors import ParameterError
from fedguard.core.ties import lowest, tolerance

from ._agr import TailoredStep, Value, copies_among, passed_by_afa, shifted, taken
from ._gamma import Line, Perturbation

Rule = Literal["krum", "multi_krum", "bulyan", "trimmed_mean", "median", "afa"]
RULES = ("krum", "multi_krum", "bulyan", "trimmed_mean", "median", "afa")


class AGRTailored(TailoredStep):
    """u' = g − γ·p for all malicious clients, γ ≥ 0 the best against one aggregation rule (AGR):

    - krum: the largest γ with which Krum selects u';
    - multi_krum, bulyan: the largest γ with which the selection contains all m copies (or only copies, if
      it is smaller than m);
    - trimmed_mean, median: γ that maximizes ‖rule(u', …, u', u_1, …, u_k) − g‖, the smallest of those
      that are equally good up to ``tolerance`` and a factor of two;
    - afa: the largest γ with which AFA keeps all m copies. AFA often rejects a γ near 0, too, since the
      mean is more similar to the aggregate than any client is. It accepts a narrow band in which u'
      is as similar to the aggregate as the others, so γ is doubled in small steps here.

    u_i are the honest updates that the attacker knows and g their mean. The rules get f = m as in the paper,
    or the largest f for which the rule is defined if the round is too small. AFA is run with equal trust
    and sample counts. The paper starts at one γ and halves its step, which cannot exceed twice that γ. This
    class tries all γ = γ_0·2^j first and bisects between the best of them and the next. γ_0 makes u' as far
    from g as the two most distant honest updates are from each other. "Largest" means the end of the
    interval of accepted γ that this search finds; there may be gaps and, rarely, a narrow interval beyond.
    If no γ > 0 has any value, u' = g.

    Without knowledge of the benign updates, the attacker's m updates stand in for them, and ⌈m²/(n − m)⌉
    copies are assumed: 1, 1, 2, 3 and 4 for m = 4, 5, 8, 10 and 12 of n = 50, as in the released code.

    Args:
        aggregator: the rule. None runs the server's own rule, some 40 times per round, and maximizes the
            shift ⟨g − rule(…), p⟩; this needs knowledge of the aggregator. (The norm of the shift would
            also reward a rejected γ, through the scatter of the remaining honest updates.)
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate, "sign" sign(g).
        knowledge: "full": all benign updates; "partial": those of the attacker's own clients.
        reach: the search for γ goes from γ_0/reach to γ_0·reach, rounded to powers of two. A rule that is
            outnumbered sets no bound, nor does the mean; γ is then γ_0·reach.
        tolerance: the paper's τ, here relative to γ.

    Raises:
        ParameterError: a parameter out of range.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §IV-B and §IV-D (Algorithm 1).
    """

    card = Card(
        "agr_tailored",
        "as far from the honest mean as a known aggregation rule allows",
        "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021",
    )
    knowledge = frozenset({"benign_updates", "aggregator"})

    def __init__(
        self,
        aggregator: Rule | None = "krum",
        perturbation: Perturbation = "std",
        knowledge: Knowledge = "full",
        reach: float = 1000.0,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(perturbation, knowledge, reach, tolerance)
        if aggregator is None:
            self.knowledge |= {"aggregator"}
        elif aggregator not in RULES:
            raise ParameterError(
                f"agr_tailored: aggregator is {aggregator!r}; use one of {', '.join(RULES)}, or None"
            )
        self.aggregator = aggregator
        if aggregator == "afa":
            self.density = 64

    def value(self, line: Line, view: UpdateView) -> Value:
        """The value of γ against the rule."""
        m = copies_among(view, full="benign_updates" in self.knowledge)
        n = line.updates.n + m
        if self.aggregator is None:
            return _pulled(line, m, view)
        if n < 3:
            return lambda gamma: 0.0
        if self.aggregator == "afa":
            return passed_by_afa(line, m)
        if self.aggregator in ("trimmed_mean", "median"):
            most = (n - 1) // 2
            return shifted(line, m, min(m, most) if self.aggregator == "trimmed_mean" else most)
        return taken(line, m, lambda table: _selection(self.aggregator, table, m))


def _selection(rule: Rule | None, table: Tensor, m: int) -> list[int]:
    """The positions that a rule of the Krum family selects; f = m, or the largest that n clients allow."""
    n = len(table)
    if rule == "krum":
        return [lowest(krum_scores(table, min(m, n - 3)).cpu().numpy(), tolerance(n))]
    if rule == "multi_krum":
        return multi_krum(table, min(m, (n - 3) // 2))
    return bulyan_selection(table, min(m, (n - 3) // 4))


def _pulled(line: Line, copies: int, view: UpdateView) -> Value:
    """⟨g − aggregate, p⟩ by the server's rule, 0 if that is negative."""
    rule = view.aggregator
    missing = rule.needs - {"global_params"}
    if missing:
        raise ParameterError(
            f"agr_tailored: the server's {rule.name} needs {', '.join(sorted(missing))}, which the attacker "
            "does not have to try it out; name a rule as `aggregator`"
        )

    def value(gamma: float) -> float:
        crafted = line.point(gamma).float().expand(copies, -1)
        whole = torch.cat([line.updates.matrix, crafted])
        aggregate = rule(Round(whole, index=view.index, global_params=view.global_params))
        return max(0.0, float((line.mean - aggregate.double()) @ line.p))

    return value
