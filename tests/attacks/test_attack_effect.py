"""What attacks do to a small federation on the digits: a plain FedAvg loop, written out here.

Softmax regression, 10 clients of which the first 3 are malicious, label-skewed data: a sample of class l
goes to client l with probability ½, otherwise to a random client. The attacker is the only difference
between two runs.
"""

import copy
import functools
import json

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812

from fedguard.aggregators.krum import Krum
from fedguard.aggregators.mean import Mean
from fedguard.aggregators.median import Median
from fedguard.aggregators.trimmed_mean import TrimmedMean
from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_attack

CLIENTS, MALICIOUS, CLASSES, FEATURES = 10, 3, 10, 64
ROUNDS, STEPS, RATE = 20, 5, 0.5
RULES = {"mean": Mean(), "trimmed_mean": TrimmedMean(MALICIOUS)}
#: Rules that single attacks are made for.
ALL_RULES = {**RULES, "median": Median(), "krum": Krum(MALICIOUS)}


@functools.cache
def digits():
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(raw.images / 16, dtype=torch.float32)[order].unsqueeze(1)
    everything = Samples(pixels, torch.tensor(raw.target)[order])
    return everything.take(torch.arange(1400)), everything.take(torch.arange(1400, len(order)))


def partition(train):
    draw = torch.Generator().manual_seed(1)
    own = torch.rand(len(train.labels), generator=draw) < 0.5
    anyone = torch.randint(0, CLIENTS, (len(train.labels),), generator=draw)
    owner = torch.where(own, train.labels, anyone)
    return [train.take((owner == client).nonzero().flatten()) for client in range(CLIENTS)]


def logits(w, pixels):
    split = FEATURES * CLASSES
    return pixels.flatten(1) @ w[:split].view(FEATURES, CLASSES) + w[split:]


def padded(clients):
    """All clients' pixels and a 1 for the bias, one-hot labels, and weights 1/size; zero where nothing is."""
    size = max(len(samples.labels) for samples in clients)
    x, labels = torch.zeros(CLIENTS, size, FEATURES + 1), torch.zeros(CLIENTS, size, CLASSES)
    weights = torch.zeros(CLIENTS, size, 1)
    for client, samples in enumerate(clients):
        count = len(samples.labels)
        x[client, :count, :FEATURES], x[client, :count, FEATURES] = samples.pixels.flatten(1), 1
        labels[client, :count] = F.one_hot(samples.labels, CLASSES).float()
        weights[client, :count] = 1 / count
    return x, labels, weights


def local_updates(start, x, labels, weights):
    """Every client's update, one row each."""
    w = start.view(1, FEATURES + 1, CLASSES).repeat(CLIENTS, 1, 1)
    for _ in range(STEPS):
        w -= RATE * (x.mT @ (weights * (torch.softmax(x @ w, 2) - labels)))
    return w.flatten(1) - start


@functools.cache
def poisoned(name, params):
    """The attack and everybody's data; the same for every rule."""
    attack = make_attack(name, **json.loads(params))
    attack.check((1, 8, 8), CLASSES, CLIENTS, MALICIOUS)
    clients = partition(digits()[0])
    for rank in range(MALICIOUS):
        view = DataView(rank, MALICIOUS, CLASSES, torch.Generator().manual_seed(rank))
        clients[rank] = attack.poison_data(clients[rank], view)
    return attack, padded(clients)


@functools.cache
def trained(name, params="{}", rule="mean", seed=0):
    """The final parameters."""
    attack, data = poisoned(name, params)
    attack = copy.deepcopy(attack)  # what it remembers belongs to one run
    aggregate = ALL_RULES[rule]
    draw = torch.Generator().manual_seed(seed)
    start = 0.01 * torch.randn(FEATURES * CLASSES + CLASSES, generator=draw)
    before = w = start.clone()
    for index in range(ROUNDS):
        updates = local_updates(w, *data)
        benign = updates[MALICIOUS:]
        view = UpdateView(
            index=index,
            num_clients=CLIENTS,
            global_params=w,
            previous_params=before,
            initial_params=start,
            own_updates=updates[:MALICIOUS],
            generator=draw,
            benign_updates=benign if attack.knowledge else None,
        )
        sent = attack.craft(view)
        attack.commit(view, sent)
        before, w = w, w + aggregate(torch.cat([sent, benign]))
    return w


@functools.cache
def outcome(name, params="{}", rule="mean"):
    """Test accuracy, test loss and ASR; with two initial models, nothing here decides otherwise."""
    test = digits()[1]
    trial = make_attack(name, **json.loads(params)).trial(test, CLASSES)
    out = logits(w := trained(name, params, rule), test.pixels)
    accuracy = float((out.argmax(1) == test.labels).float().mean())
    loss = float(F.cross_entropy(out, test.labels))
    if trial is None:
        return accuracy, loss, float("nan")
    hits = logits(w, trial.samples.pixels).argmax(1) == trial.target
    return accuracy, loss, float(hits.float().mean())


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("rule", RULES)
def test_without_attack_the_model_learns(rule):
    assert outcome("none", rule=rule)[0] > 0.9


@pytest.mark.parametrize(
    ("name", "params", "rule", "points"),
    [
        ("label_flip", "{}", "mean", 5),
        ("label_flip", '{"mode": "next"}', "mean", 5),
        ("byzantine", '{"mode": "random"}', "mean", 40),
        ("byzantine", '{"mode": "flip"}', "mean", 10),
        ("byzantine", '{"mode": "zero"}', "mean", 5),
        ("lie", '{"z": 10}', "mean", 5),
        ("min_max", '{"perturbation": "unit"}', "mean", 2),
        ("min_max", '{"perturbation": "sign"}', "mean", 2),
        ("min_sum", '{"perturbation": "unit"}', "mean", 2),
        ("fang_trimmed_mean", "{}", "mean", 20),
        ("fang_trimmed_mean", '{"knowledge": "partial"}', "mean", 10),
        ("fang_trimmed_mean", "{}", "trimmed_mean", 5),
        ("fang_trimmed_mean", '{"goal": "deviation"}', "trimmed_mean", 3),
        ("fang_median", "{}", "median", 4),
        ("fang_median", '{"goal": "deviation"}', "median", 3),
        ("fang_krum", "{}", "krum", 60),
        ("fang_krum", '{"goal": "deviation"}', "krum", 60),
        ("fang_krum", "{}", "trimmed_mean", 3),
        ("fang_krum", '{"knowledge": "partial"}', "mean", 20),
        ("back_gradient", "{}", "krum", 5),
        ("mpaf", "{}", "mean", 10),
        ("ipm", '{"epsilon": 5}', "mean", 40),
        ("ipm", "{}", "krum", 40),
        ("random_labels", "{}", "mean", 2),
        ("random_labels", "{}", "krum", 40),
        ("lazy_worker", "{}", "krum", 40),
        ("lazy_worker", '{"mode": "disguised"}', "krum", 40),
        ("mimic", "{}", "median", 3),
        ("agr_tailored", "{}", "krum", 15),
        ("agr_tailored", '{"perturbation": "unit"}', "krum", 60),
        ("agr_tailored", '{"aggregator": "trimmed_mean", "perturbation": "unit"}', "trimmed_mean", 4),
        ("agr_tailored", '{"aggregator": "median", "perturbation": "unit"}', "median", 5),
        ("mpaf", '{"base": "random"}', "mean", 40),
    ],
)
def test_an_untargeted_attack_costs_accuracy(name, params, rule, points):
    assert outcome(name, params, rule)[0] < outcome("none", rule=rule)[0] - points / 100


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lie", '{"z": 1.5}'),
        ("min_max", "{}"),
        ("min_sum", "{}"),
        ("min_sum", '{"perturbation": "sign"}'),
        ("adaptive_dnc", '{"perturbation": "unit"}'),
        ("back_gradient", "{}"),
    ],
)
@pytest.mark.thin(2)
@pytest.mark.parametrize("rule", RULES)
def test_a_stealthy_attack_costs_loss(name, params, rule):
    """Their shift is within the spread of honest updates, which is small here: look at the loss."""
    assert outcome(name, params, rule)[1] > 1.05 * outcome("none", rule=rule)[1]


@pytest.mark.parametrize("rule", RULES)
def test_optimized_points_do_more_than_random_flips(rule):
    flips = outcome("back_gradient", '{"iterations": 0}', rule)[1]
    assert outcome("back_gradient", rule=rule)[1] > 1.05 * flips


@pytest.mark.parametrize(("name", "rule"), [("fang_trimmed_mean", "trimmed_mean"), ("fang_median", "median")])
def test_a_direction_does_more_than_mere_deviation(name, rule):
    """Table 8 of the paper: far more so for trimmed mean and median."""
    assert outcome(name, rule=rule)[1] > 1.1 * outcome(name, '{"goal": "deviation"}', rule)[1]


def test_gaussian_updates_do_next_to_nothing():
    """The paper's point about this attack (§4.1): random crafting is not effective."""
    assert outcome("gaussian")[0] > outcome("none")[0] - 0.02


@pytest.mark.parametrize("mode", ["previous", "noisy"])
def test_free_riders_who_repeat_the_last_change_slow_nothing_down(mode):
    assert outcome("lazy_worker", f'{{"mode": "{mode}"}}')[0] > outcome("none")[0] - 0.02


def test_free_riders_who_send_the_model_back_slow_the_mean_down():
    assert outcome("lazy_worker")[1] > 1.2 * outcome("none")[1]


UNIT = '{"perturbation": "unit"}'


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("min_max", UNIT),
        ("adaptive_dnc", UNIT),
        ("agr_tailored", '{"aggregator": "trimmed_mean", "perturbation": "unit"}'),
        ("agr_tailored", '{"aggregator": "median", "perturbation": "unit"}'),
    ],
)
def test_krum_suffers_most_from_the_attack_tailored_to_it(name, params):
    assert outcome("agr_tailored", UNIT, "krum")[1] > 1.5 * outcome(name, params, "krum")[1]


def test_the_backdoor_opens_and_hides():
    accuracy, _, asr = outcome("scaling_backdoor")
    assert asr > 0.9
    assert accuracy > outcome("none")[0] - 0.05


def test_the_trigger_alone_does_not_fool_a_clean_model():
    trial = make_attack("scaling_backdoor").trial(digits()[1], CLASSES)
    w = trained("none")
    assert (logits(w, trial.samples.pixels).argmax(1) == trial.target).float().mean() < 0.1


def test_scaling_strengthens_the_backdoor():
    weak = outcome("scaling_backdoor", '{"fraction": 0.02, "scale": 1}')[2]
    assert outcome("scaling_backdoor", '{"fraction": 0.02}')[2] > weak + 0.2


def test_flipped_pairs_are_confused_more_often_than_without_the_attack():
    trial = make_attack("label_flip", mode="pairs", pairs={3: 9, 2: 1}).trial(digits()[1], CLASSES)
    w = trained("none")
    clean = (logits(w, trial.samples.pixels).argmax(1) == trial.target).float().mean()
    assert outcome("label_flip", '{"mode": "pairs", "pairs": {"3": 9, "2": 1}}')[2] > clean + 0.1
