"""Calibrate: learn a threshold from some recorded rounds, and measure every rule on the others."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...contracts.calibration import conformal_threshold
from ...contracts.card import Method
from ...contracts.detector import Detector
from ...contracts.nested import make, split
from ...contracts.registry import REGISTRIES
from ...core.errors import ConfigError, FedGuardError, ParameterError
from ...core.threads import single_thread
from ...guard import Guard
from .injection import Injection, suitable
from .rates import NOTHING, Rate
from .rounds import Rounds

#: Attacks that are injected by default: −u, 3u, and μ − zσ.
ATTACKS: tuple[Any, ...] = ("sign_flip", "scaling_backdoor", "lie")
#: Detectors that are measured by default; they need nothing but updates.
DETECTORS: tuple[Any, ...] = ("recommended", "dnc", "norm_bound")


@dataclass(frozen=True)
class Wish:
    """What to calibrate for.

    Attributes:
        rate: the wanted rate of false suspicions per client and round, in (0, 1).
        policy: the policy's name, or a mapping of name and parameters.
        attacks: the attacks to inject, likewise.
        share: the share of clients that attack, in (0, 0.5].
        seed: the seed of who attacks and how.

    Raises:
        ParameterError: a rate or a share is out of range.
    """

    rate: float = 0.01
    policy: Any = "ban"
    attacks: Sequence[Any] = ATTACKS
    share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ParameterError(f"rate is {self.rate}; use a share in (0, 1), say 0.01")
        if not 0 < self.share <= 0.5:
            raise ParameterError(f"share is {self.share}; use a share of attackers in (0, 0.5], say 0.25")


@dataclass
class Found:
    """What one rule did on the measured rounds; clients are taken as honest.

    Attributes:
        detector: its spec.
        policy: its spec, with the rule.
        suspicions: false suspicions among the updates that the detector judged.
        bans: clients that were banned by mistake, among all clients.
        detection: attack → the attackers' updates that were kept out, among all of theirs.
        honest: attack → the honest updates that were kept out under it, among all of theirs.
        notes: what could not be done, and why.
        failed: True if the rule could not be measured at all.
    """

    detector: Any
    policy: dict[str, Any]
    suspicions: Rate = NOTHING
    bans: Rate = NOTHING
    detection: dict[str, Rate] = field(default_factory=dict)
    honest: dict[str, Rate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    @property
    def rule(self) -> str:
        """The rule in short, as ``native`` or ``threshold 3.2``."""
        rule = self.policy.get("rule", "native")
        return rule if isinstance(rule, str) else " ".join(_short(value) for value in rule.values())

    def fits(self, rate: float) -> bool:
        """Whether the measured rounds agree with a rate: the interval does not lie above it."""
        return not self.failed and self.suspicions.n > 0 and self.suspicions.interval()[0] <= rate


def calibrate(rounds: Rounds, detectors: Sequence[Any] = DETECTORS, wish: Wish | None = None) -> list[Found]:
    """Measure the own rule of every detector, and the threshold that the wanted rate gives.

    The threshold is the conformal one (:func:`fedguard.contracts.calibration.conformal_threshold`) of the
    scores in the rounds to learn from. All rates are of the other rounds, so they are honest about scores
    that move as training goes on.

    Args:
        rounds: of the recording.
        detectors: names, or mappings of name and parameters.
        wish: what to calibrate for.

    Raises:
        ParameterError: a detector or the policy is not valid.
        RegistryError: there is no such detector or policy.
        ConfigError: an attack cannot be injected into recorded rounds.
    """
    wish = wish or Wish()
    make(wish.policy, "policies", "policy")
    name, params = split(wish.policy)
    policy = {"name": name, **params}
    takes_rule = "rule" in inspect.signature(REGISTRIES["policies"].get(name)).parameters
    for attack in wish.attacks:
        suitable(attack)
    built = [make(spec, "detectors", "detector") for spec in detectors]
    found: list[Found] = []
    with single_thread():
        for spec, detector in zip(detectors, built, strict=True):
            found += _both(spec, copy.deepcopy(detector), policy, takes_rule, rounds, wish)
    return found


def _both(
    spec: Any, detector: Detector, policy: dict[str, Any], takes_rule: bool, rounds: Rounds, wish: Wish
) -> list[Found]:
    """What the policy's rule does, and a threshold if the policy leaves the rule open."""
    found = [Found(spec, policy)]
    try:
        scores = _learn([detector], rounds)
    except FedGuardError as error:
        found[0].notes.append(str(error))
        found[0].failed = True
        return found
    if takes_rule and "rule" not in policy:
        found += _with_threshold(spec, policy, scores, wish.rate, found[0])
    for each in found:
        _measure(each, partial(_guard, [detector], each.policy), rounds, wish)
    return found


def calibrate_guard(rounds: Rounds, guard: Guard, wish: Wish | None = None) -> Found:
    """Measure a guard as it is: its detectors and its policy, without stages and aggregator.

    Args:
        rounds: of the recording.
        guard: it stays unchanged.
        wish: the attacks; its rate and its policy do not matter.

    Raises:
        ConfigError: an attack cannot be injected into recorded rounds.
    """
    wish = wish or Wish()
    for attack in wish.attacks:
        suitable(attack)
    policy = guard.policy
    found = Found(" + ".join(guard.detectors) or "none", {"name": policy.name, "rule": policy.rule.name})
    detectors = [copy.deepcopy(detector) for detector in guard.detectors.values()]
    with single_thread():
        try:
            _learn(detectors, rounds)
        except FedGuardError as error:
            found.notes.append(str(error))
            found.failed = True
            return found
        _measure(found, partial(_guard, detectors, policy), rounds, wish)
    return found


def _guard(learned: Sequence[Detector], policy: Any) -> Guard:
    """A new guard whose detectors know the rounds to learn from."""
    return Guard([copy.deepcopy(detector) for detector in learned], copy.deepcopy(policy))


def best(found: Sequence[Found], rate: float) -> Found:
    """Of the rules that agree with the wanted rate and ban fewest clients, the one that detects most.

    Detection is the mean over the attacks.

    Raises:
        ConfigError: none does.
    """
    fitting = [each for each in found if each.fits(rate)]
    if not fitting:
        raise ConfigError(
            f"no rule agrees with a rate of {rate:g} false suspicions per client and round; record more "
            "rounds, choose other detectors, or a higher --rate"
        )
    return max(fitting, key=lambda each: (-each.bans.k, _mean(each.detection), -each.suspicions.value))


def _with_threshold(
    spec: Any, policy: Mapping[str, Any], scores: np.ndarray[Any, Any], rate: float, native: Found
) -> list[Found]:
    limit = conformal_threshold(scores, rate)
    if math.isfinite(limit):
        return [Found(spec, {**policy, "rule": {"name": "threshold", "value": limit}})]
    native.notes.append(
        f"no threshold: {len(scores)} scores to learn from are too few for a rate of {rate:g}, or too many "
        f"are infinite; at least {math.ceil(1 / rate) - 1} are needed"
    )
    return []


def _learn(detectors: Sequence[Detector], rounds: Rounds) -> np.ndarray[Any, Any]:
    """The scores of the rounds to learn from; the detectors then know these rounds."""
    guard, scores = Guard(detectors, "observe"), [np.zeros(0)]
    for round in rounds.learned():
        scores += guard.watch(round).by_detector.values()
    together = np.concatenate(scores)
    return together[~np.isnan(together)]


def _measure(found: Found, guard: Callable[[], Guard], rounds: Rounds, wish: Wish) -> None:
    try:
        _clean(found, guard(), rounds)
    except FedGuardError as error:
        found.notes.append(str(error))
        found.failed = True
        return
    for attack in wish.attacks:
        try:
            injection = Injection(attack, rounds.clients, wish.share, wish.seed)
            _attacked(found, label(attack), guard(), injection, rounds)
        except FedGuardError as error:
            found.notes.append(str(error))


def _clean(found: Found, guard: Guard, rounds: Rounds) -> None:
    suspected = judged = 0
    banned: set[str] = set()
    for round in rounds.measured():
        outcome = guard.watch(round)
        suspected += int((outcome.suspects & ~outcome.barred).sum())
        judged += int((~outcome.barred).sum())
        banned |= {str(outcome.client_ids[i]) for i in np.flatnonzero(outcome.banned)}
    found.suspicions, found.bans = Rate(suspected, judged), Rate(len(banned), len(rounds.clients))


def _attacked(found: Found, name: str, guard: Guard, injection: Injection, rounds: Rounds) -> None:
    counts = np.zeros((2, 2), dtype=int)  # honest or attacking: kept out, all
    for round in rounds.measured():
        received, bad = injection.into(round, guard)
        out = guard.watch(received).weights == 0
        for row, who in enumerate((~bad, bad)):
            counts[row] += int((out & who).sum()), int(who.sum())
    found.honest[name] = Rate(*counts[0].tolist())
    found.detection[name] = Rate(*counts[1].tolist())


def label(spec: Any) -> str:
    """A spec in short: ``lie`` or ``lie z=1.5``; an object by its name."""
    if isinstance(spec, Method):
        return spec.name
    name, params = split(spec)
    return " ".join([name, *(f"{key}={_short(value)}" for key, value in params.items())])


def _mean(rates: Mapping[str, Rate]) -> float:
    values = [rate.value for rate in rates.values() if rate.n]
    return float(np.mean(values)) if values else 0.0


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
