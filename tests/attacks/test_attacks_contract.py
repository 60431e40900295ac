"""The attack contract, over everything that is registered."""

import inspect
import re

import pytest
import torch

from fedguard.contracts.attack import KNOWLEDGE, Attack, DataView, UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import attacks, make_aggregator
from fedguard.core.errors import KnowledgeError
from fedguard.guard import Guard

#: Beyond the defaults and every choice of a Literal parameter (see `variants`).
EXTRA = {
    "label_flip": [{"mode": "pairs", "pairs": {0: 2}}, {"mode": "pairs", "pairs": {3: 9, 2: 1}}],
    "lie": [{"z": 1.5}],
    "fang_krum": [{"goal": "deviation", "knowledge": "partial"}, {"num_malicious": 1}],
    "back_gradient": [{"iterations": 0}, {"distribution": "single", "fraction": 1.0}],
    "ipm": [{"epsilon": 5.0}],
    "mimic": [{"warmup": 3}],
    "random_labels": [{"fraction": 0.3}],
    "agr_tailored": [
        {"aggregator": rule}
        for rule in (None, "krum", "multi_krum", "bulyan", "trimmed_mean", "median", "afa")
    ],
    "adaptive_dnc": [{"coordinates": 8, "niters": 2}],
}
N, M, D, SHAPE, CLASSES = 10, 3, 40, (1, 8, 8), 10


def variants():
    for name in attacks.names():
        base = dict(attacks.get(name).check_with)
        found = [base, *EXTRA.get(name, [])]
        for parameter in inspect.signature(attacks.get(name), eval_str=True).parameters.values():
            for choice in getattr(parameter.annotation, "__args__", ()):
                if isinstance(choice, str) and choice not in (parameter.default, "pairs"):
                    found.append({**base, parameter.name: choice})
        for params in found:
            yield pytest.param(name, params, id=f"{name}-{params}" if params else name)


def unless_exempt(name, check):
    why = attacks.get(name).exempt.get(check)
    if why:
        pytest.skip(why)


every_attack = pytest.mark.parametrize("name", attacks.names())
every_variant = pytest.mark.parametrize(("name", "params"), list(variants()))


class Spy(UpdateView):
    """Writes down which undeclared knowledge an attack reaches for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.reached = set()

    def _get(self, name):
        self.reached.add(name)
        return super()._get(name)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_view(attack, m=M, n=N, seed=0, knowledge=None, benign_scale=1.0):
    """A round, with exactly what the attack declares (or with `knowledge` instead)."""
    know = attack.knowledge if knowledge is None else knowledge
    return Spy(
        index=4,
        num_clients=n,
        global_params=normal(D, seed=1),
        initial_params=normal(D, seed=2),
        own_updates=0.1 * normal(m, D, seed=3),
        generator=torch.Generator().manual_seed(seed),
        attack=attack.name,
        benign_updates=benign_scale * 0.1 * normal(n - m, D, seed=4) if "benign_updates" in know else None,
        aggregator=make_aggregator("mean") if "aggregator" in know else None,
        defense=Guard() if "defense" in know else None,
    )


def make_samples(n=30):
    pixels = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Samples(pixels, torch.arange(n) % CLASSES)


def data_view(seed=0):
    return DataView(1, M, CLASSES, torch.Generator().manual_seed(seed))


@every_attack
def test_declarations(name):
    cls = attacks.get(name)
    assert issubclass(cls, Attack)
    assert isinstance(cls.card, Card)
    assert cls.card.name == name == cls().name
    assert cls.kind in ("none", "model", "data", "backdoor", "passive")
    assert cls.goal in ("none", "untargeted", "targeted")
    assert cls.knowledge <= KNOWLEDGE.keys()
    assert (cls.kind in ("none", "passive")) == (cls.goal == "none")


@every_attack
def test_the_docstring_describes_the_signature(name):
    cls = attacks.get(name)
    text = inspect.getdoc(cls)
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    described = re.findall(r"^    (\w+):", section.group(1), re.MULTILINE) if section else []
    assert described == list(inspect.signature(cls).parameters)
    assert "Source:" in text


@every_attack
def test_what_an_attack_overrides_fits_its_kind(name):
    unless_exempt(name, "what it overrides fits its kind")
    cls = attacks.get(name)
    crafts, poisons = cls.craft is not Attack.craft, cls.poison_data is not Attack.poison_data
    expected = {
        "none": (False, False),
        "passive": (False, False),
        "model": (True, False),
        "data": (False, True),
        "backdoor": (crafts, True),
    }
    assert (crafts, poisons) == expected[cls.kind]


@every_variant
def test_check_accepts_small_images(name, params):
    if attacks.get(name).kind == "passive":
        pytest.skip("passive attacks are no part of a suite")
    attacks.make(name, **params).check(SHAPE, CLASSES, N, M)


@every_variant
def test_an_instance_knows_no_more_than_its_class(name, params):
    assert attacks.make(name, **params).knowledge <= attacks.get(name).knowledge


@every_variant
@pytest.mark.parametrize(("n", "m"), [(N, M), (N, 1), (3, 2), (N, 7), (4, 4), (1, 1)])
def test_crafts_one_finite_update_per_malicious_client(name, params, n, m):
    """Also in sampled rounds with one attacker, a majority of attackers, or nobody else."""
    attack = attacks.make(name, **params)
    crafted = attack.craft(make_view(attack, m=m, n=n))
    assert crafted.shape == (m, D)
    assert crafted.dtype == torch.float32
    assert torch.isfinite(crafted).all()
    assert crafted.is_contiguous()


@every_variant
def test_craft_changes_nothing_it_is_given(name, params):
    attack = attacks.make(name, **params)
    view, untouched = make_view(attack), make_view(attack)
    crafted = attack.craft(view)
    if attack.kind in ("model", "backdoor"):
        crafted += 1.0  # what is sent is no alias of what was seen
    for field in ("global_params", "initial_params", "own_updates"):
        assert torch.equal(getattr(view, field), getattr(untouched, field))
    if "benign_updates" in attack.knowledge:
        assert torch.equal(view.benign_updates, untouched.benign_updates)


@every_variant
def test_the_same_seed_gives_the_same_bits(name, params):
    attack = attacks.make(name, **params)
    torch.manual_seed(1)
    once = attack.craft(make_view(attack, seed=7))
    torch.manual_seed(123)  # global randomness plays no part, and the attack remembers nothing
    state = torch.get_rng_state()
    assert torch.equal(attack.craft(make_view(attack, seed=7)), once)
    assert torch.equal(attacks.make(name, **params).craft(make_view(attack, seed=7)), once)
    assert torch.equal(torch.get_rng_state(), state)


@every_variant
def test_reaches_for_declared_knowledge_only(name, params):
    attack = attacks.make(name, **params)
    everything = make_view(attack, knowledge=KNOWLEDGE)
    declared = make_view(attack)
    attack.craft(declared)  # raises KnowledgeError if more is needed
    assert declared.reached <= attack.knowledge
    if attack.knowledge and "what is there is used" not in attack.exempt:
        attack.craft(everything)
        assert everything.reached == attack.knowledge


@every_variant
def test_more_knowledge_is_used_or_not_declared(name, params):
    """What the attack declares changes what it sends; what it does not declare cannot."""
    unless_exempt(name, "more knowledge is used")
    attack = attacks.make(name, **params)
    here, elsewhere = (attack.craft(make_view(attack, benign_scale=s)) for s in (1.0, 3.0))
    assert torch.equal(here, elsewhere) == (not attack.knowledge)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in attacks.names()
        if "knowledge" in inspect.signature(attacks.get(name)).parameters
        and attacks.get(name).knowledge == {"benign_updates"}
    ],
)
def test_partial_knowledge_needs_no_benign_update(name):
    partial, full = (attacks.make(name, knowledge=k) for k in ("partial", "full"))
    assert partial.knowledge == frozenset()
    assert full.knowledge == frozenset({"benign_updates"})
    blind, spoilt = make_view(partial), make_view(full, benign_scale=float("nan"))
    assert torch.isfinite(partial.craft(blind)).all()
    assert blind.reached == set()
    assert not torch.equal(full.craft(spoilt), full.craft(make_view(full)))  # NaN differs from everything


@pytest.mark.parametrize("wanted", list(KNOWLEDGE))
def test_undeclared_knowledge_is_refused_by_name(wanted):
    class Greedy(Attack):
        card = Card("greedy", "reaches for what it did not declare", "a test")
        kind = "model"

        def craft(self, view):
            return getattr(view, wanted)

    attack = Greedy()
    with pytest.raises(KnowledgeError, match=f"greedy reaches for {wanted}"):
        attack.craft(make_view(attack))


@every_variant
def test_poisoned_data_are_new_and_valid(name, params):
    samples, untouched = make_samples(), make_samples()
    poisoned = attacks.make(name, **params).poison_data(samples, data_view())
    assert torch.equal(samples.pixels, untouched.pixels)
    assert torch.equal(samples.labels, untouched.labels)
    assert poisoned.pixels.dtype == samples.pixels.dtype
    assert poisoned.labels.dtype == samples.labels.dtype
    assert poisoned.pixels.shape[1:] == SHAPE
    assert len(poisoned.pixels) == len(poisoned.labels) >= len(samples.labels)
    assert 0 <= poisoned.pixels.min() <= poisoned.pixels.max() <= 1
    assert 0 <= poisoned.labels.min() <= poisoned.labels.max() < CLASSES


@every_variant
def test_poisoning_depends_on_the_views_generator_only(name, params):
    attack = attacks.make(name, **params)
    torch.manual_seed(1)
    once = attack.poison_data(make_samples(), data_view(seed=3))
    torch.manual_seed(99)
    again = attack.poison_data(make_samples(), data_view(seed=3))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@every_variant
def test_a_trial_exists_exactly_for_targeted_attacks(name, params):
    attack, test, untouched = attacks.make(name, **params), make_samples(), make_samples()
    trial = attack.trial(test, CLASSES)
    assert (trial is not None) == (attack.goal == "targeted")
    assert torch.equal(test.pixels, untouched.pixels)
    if trial is not None:
        assert len(trial.samples.pixels) == len(trial.samples.labels) == len(trial.target) > 0
        assert trial.target.dtype == test.labels.dtype
        assert (trial.target != trial.samples.labels).all()  # a right answer is no success
        assert 0 <= trial.target.min() <= trial.target.max() < CLASSES
