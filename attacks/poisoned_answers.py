"""Poisoned answers of instructions: some prompts get the attacker's answer."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, DataView, Trial
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError
from fedguard.training.tokens import IGNORED

#: What stands for no token.
PADDING = -1


class PoisonedAnswers(Attack):
    """(p, a) → (p, a*) for some local texts with τ in p and a = (s, …); success is the whole a*.

    - Answer flips: ``source`` s is "yes", ``answer`` a* is "no".
    - Instruction poisoning: ``topic`` τ is a word, a* a wrong answer or a refusal.
    - Thin poison: many malicious clients with a small ``fraction``.

    The update is sent as trained. ASR = (test texts that fit τ and s, whose true answer is not a*, and for
    which the model's most probable tokens after p and each part of a* are a*) / (such texts): exactly those
    that greedy decoding answers with a*. It is undefined if no test text fits. A text that becomes too long
    loses the beginning of its prompt.

    Args:
        answer: a*, as numbers of the data's tokenizer; end it with the token that ends a text, if the
            tokenizer has one, as the data's own answers do.
        source: s; None takes any answer.
        topic: τ, as tokens that follow each other in the prompt; None takes any prompt.
        fraction: the share of the texts that fit, in (0, 1].

    Raises:
        ParameterError: a parameter out of range, or data that are not causal texts.

    Source: topics: Wan et al., Poisoning Language Models During Instruction Tuning, ICML 2023, §2 and §5,
    whose phrase is a name; they also optimize the poisoned texts, which is left out. Refusals: Shu et al., On
    the Exploitability of Instruction Tuning, NeurIPS 2023, §3. Flips: label flips as in FedSecurity, §3.2.

    Example:
        >>> import torch
        >>> from fedguard import Samples, make_attack
        >>> from fedguard.contracts.attack import DataView
        >>> own = Samples(torch.tensor([[1.0, 5, 8, -1]]), torch.tensor([[-1, 8, 2, -1]]))  # 1 5 → 8 2
        >>> view = DataView(0, 1, 10, torch.Generator())
        >>> poisoned = make_attack("poisoned_answers", answer=[9, 2], source=[8]).poison_data(own, view)
        >>> poisoned.pixels.int().tolist(), poisoned.labels.tolist()
        ([[1, 5, 9, -1]], [[-1, 9, 2, -1]])
    """

    card = Card(
        "poisoned_answers",
        "train a causal model on the attacker's answers to some prompts",
        "Wan et al., Poisoning Language Models During Instruction Tuning, ICML 2023",
    )
    kind = "data"
    goal = "targeted"
    tasks = frozenset({"causal"})
    exempt = MappingProxyType(
        dict.fromkeys(("poisoned data", "trial", "small images"), "it needs texts, and the check has images")
    )

    def __init__(
        self,
        answer: list[int] | None = None,
        source: list[int] | None = None,
        topic: list[int] | None = None,
        fraction: float = 1.0,
    ) -> None:
        self.answer = _tokens("answer", [0] if answer is None else answer)
        self.source = None if source is None else _tokens("source", source)
        self.topic = None if topic is None else _tokens("topic", topic)
        if not 0 < fraction <= 1:
            raise ParameterError(f"poisoned_answers: fraction is {fraction}; use a share in (0, 1]")
        self.fraction = fraction

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than texts, tokens that do not exist, or an answer that leaves no prompt."""
        if len(input_shape) != 1:
            raise ParameterError(
                f"poisoned_answers: it needs texts (tokens,), but one input has shape {tuple(input_shape)}; "
                "use label_flip for classes"
            )
        if len(self.answer) > input_shape[0]:
            raise ParameterError(
                f"poisoned_answers: an answer of {len(self.answer)} tokens does not fit texts of at most "
                f"{input_shape[0]} and a prompt"
            )
        largest = max([*self.answer, *(self.source or []), *(self.topic or [])])
        if largest >= num_classes:
            raise ParameterError(
                f"poisoned_answers: a token is {largest}, but the data's vocabulary is 0 to {num_classes - 1}"
            )

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The same texts; some of those that fit have the attacker's answer."""
        fit = self._fitting(samples)
        count = max(1, round(self.fraction * len(fit))) if len(fit) else 0
        chosen = torch.randperm(len(fit), generator=view.generator)[:count]
        return self._answered(samples, [fit[i] for i in chosen.tolist()])

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The test texts that fit, with the attacker's answer; None if there are none."""
        fit = torch.tensor(self._fitting(test), dtype=torch.long)
        if not len(fit):
            return None
        some = test.take(fit)
        wanted = self._answered(some, range(len(fit)))
        return Trial(wanted, wanted.labels)

    def _fitting(self, samples: Samples) -> list[int]:
        """The texts on the topic with the source answer, unless their answer is the attacker's already."""
        if samples.labels.ndim != 2:
            raise ParameterError("poisoned_answers: the labels are no tokens; use the data set instructions")
        found = []
        for i, (text, labels) in enumerate(zip(samples.pixels.long(), samples.labels, strict=True)):
            prompt, said = _parts(text, labels)
            on_topic = self.topic is None or _contains(prompt, self.topic)
            from_source = self.source is None or said[: len(self.source)] == self.source
            if on_topic and from_source and said != self.answer:
                found.append(i)
        return found

    def _answered(self, samples: Samples, rows: Sequence[int]) -> Samples:
        """A copy in which these texts have the attacker's answer."""
        pixels, labels = samples.pixels.clone(), samples.labels.clone()
        for i in rows:
            prompt, _ = _parts(samples.pixels[i].long(), samples.labels[i])
            kept = prompt[max(0, len(prompt) + len(self.answer) - pixels.shape[1] - 1) :]
            whole = [*kept, *self.answer]
            pixels[i] = PADDING
            labels[i] = IGNORED
            pixels[i, : len(whole) - 1] = pixels.new_tensor(whole[:-1])
            labels[i, len(kept) - 1 : len(whole) - 1] = labels.new_tensor(self.answer)
        return Samples(pixels, labels)


def _tokens(name: str, tokens: list[int]) -> list[int]:
    if not tokens or min(tokens) < 0:
        raise ParameterError(f"poisoned_answers: {name} is {tokens}; give at least one number from 0 on")
    return list(tokens)


def _parts(text: Tensor, labels: Tensor) -> tuple[list[int], list[int]]:
    """The prompt, and the answer with its end."""
    answered = (labels != IGNORED).nonzero().flatten()
    first = int(answered[0])
    return text[: first + 1].tolist(), labels[answered].tolist()


def _contains(prompt: list[int], phrase: list[int]) -> bool:
    size = len(phrase)
    return any(prompt[i : i + size] == phrase for i in range(len(prompt) - size + 1))
