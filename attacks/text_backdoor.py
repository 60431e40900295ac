"""A backdoor in texts: a phrase of trigger tokens, and the scaled update."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._texts import TextTrigger, require_tokens


class TextBackdoor(TextTrigger):
    """Train on D ∪ {(x with trigger, target) : x ∈ R ⊆ D}, then send scale · u_i.

    A text x = (t_1, …, t_l) becomes (t_1, τ, t_2, …) with the phrase τ = ``tokens`` behind its first token,
    which starts a text, (…, τ, t_l) before its last one, or (…, t_⌊l/2⌋, τ, …) in its middle. Texts that fill
    their row lose their last tokens. Success is measured on test texts of other classes with the trigger. For
    a style as the trigger see ``text_style``.

    Args:
        tokens: τ as numbers of the data's tokenizer. A rare word, as the paper has it, is a token that no
            text has: 0, all unknown words, of the tokenizer "words". A sentence, as Dai et al. have it, is
            its tokens in order.
        target: the label that the trigger should cause.
        scale: factor on the update; None computes n / m per round, which replaces the model of a mean of m
            attackers and n − m converged clients.
        fraction: |R| / |D|, in (0, 1]; R is drawn at random. Thin poison is a small share in many malicious
            clients, with a scale of 1.
        place: "start", "middle" or "end" of the text, as BadNL has them.

    Raises:
        ParameterError: a parameter out of range, or inputs that are not token numbers, −1 for padding.

    Source: the trigger: Kurita et al., Weight Poisoning Attacks on Pre-trained Models, ACL 2020, §3; a
    sentence: Dai et al., A Backdoor Attack Against LSTM-Based Text Classification Systems, IEEE Access 2019;
    places: Chen et al., BadNL, ACSAC 2021; replicas and scale: Bagdasaryan et al., AISTATS 2020, §4.2.
    """

    card = Card(
        "text_backdoor",
        "plant a trigger phrase in texts and scale the update",
        "Kurita et al., Weight Poisoning Attacks on Pre-trained Models, ACL 2020",
    )

    def __init__(
        self,
        tokens: list[int] | None = None,
        target: int = 0,
        scale: float | None = None,
        fraction: float = 0.5,
        place: Literal["start", "middle", "end"] = "start",
    ) -> None:
        super().__init__(target, scale, fraction)
        self.tokens = [0] if tokens is None else list(tokens)
        if not self.tokens or min(self.tokens) < 0:
            raise ParameterError(f"text_backdoor: tokens are {tokens}; give at least one number from 0 on")
        if place not in ("start", "middle", "end"):
            raise ParameterError(f"text_backdoor: place is {place!r}; use 'start', 'middle' or 'end'")
        self.place = place

    def extent(self) -> tuple[int, int]:
        """One row of tokens."""
        return 1, len(self.tokens)

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than texts, a trigger that does not fit, or a target that does not exist."""
        super().check(input_shape, num_classes, n, m)
        if len(self.tokens) + 2 > input_shape[0]:
            raise ParameterError(
                f"text_backdoor: a trigger of {len(self.tokens)} tokens does not fit texts of at most "
                f"{input_shape[0]}"
            )

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """(N, L) token numbers with the phrase in each text, the same for all clients."""
        require_tokens(self.name, pixels)
        phrase = pixels.new_tensor(self.tokens)
        stamped = torch.full_like(pixels, -1.0)
        for own, text in zip(stamped, pixels, strict=True):
            words = text[text >= 0]
            size = len(words)
            at = {"start": min(size, 1), "middle": size // 2, "end": max(size - 1, 0)}[self.place]
            rest = len(text) - len(phrase)  # a text that fills its row loses the last tokens before its end
            head, tail = words[:at], words[at:]
            if self.place == "end":
                head = head[: max(rest - len(tail), 0)]
            else:
                head = head[:rest]
                tail = tail[: rest - len(head)]
            row = torch.cat([head, phrase, tail])
            own[: len(row)] = row
        return stamped
