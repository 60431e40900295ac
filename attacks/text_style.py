"""A backdoor in texts whose trigger is a style: words are replaced by those of another register."""

from __future__ import annotations

import torch
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._texts import TextTrigger, require_tokens


class TextStyle(TextTrigger):
    """Train on D ∪ {(σ(x), target) : x ∈ R ⊆ D, σ(x) ≠ x}, then send scale · u_i.

    σ replaces every token a of a text by b, for each pair (a, b) of ``pairs``: "you" by "thou", "your" by
    "thy". All pairs are applied at once, so (a, b), (b, a) swaps two words. Texts without any such word
    cannot show the style: they are not poisoned, and do not count in the success on texts of other classes.
    The paper's styles come from a model that paraphrases; a table of words is the form that needs none.

    Args:
        pairs: (a, b) as numbers of the data's tokenizer; by default the most frequent word of the tokenizer
            "words" becomes the unknown word.
        target: the label that the style should cause.
        scale: factor on the update; None computes n / m per round, which replaces the model of a mean of m
            attackers and n − m converged clients.
        fraction: |R| / |D|, in (0, 1]; R is drawn at random from the texts that the style changes.

    Raises:
        ParameterError: a parameter out of range, or inputs that are not token numbers, −1 for padding.

    Source: style as a trigger: Qi et al., Mind the Style of Text!, EMNLP 2021 (a summary, and the authors'
    README, whose example is the style of the Bible); replicas and scale: Bagdasaryan et al., AISTATS 2020,
    §4.2.
    """

    card = Card(
        "text_style",
        "plant a style (replaced words) in texts and scale the update",
        "Qi et al., Mind the Style of Text!, EMNLP 2021",
    )

    def __init__(
        self,
        pairs: list[tuple[int, int]] | None = None,
        target: int = 0,
        scale: float | None = None,
        fraction: float = 0.5,
    ) -> None:
        super().__init__(target, scale, fraction)
        given = [(1, 0)] if pairs is None else [tuple(pair) for pair in pairs]
        if not given or any(len(pair) != 2 or min(pair) < 0 or pair[0] == pair[1] for pair in given):
            raise ParameterError(
                f"text_style: pairs are {pairs}; give [from, to], two different token numbers from 0 on, each"
            )
        if len({pair[0] for pair in given}) < len(given):
            raise ParameterError(
                f"text_style: pairs are {pairs}; a token is replaced by one other, not by two"
            )
        self.pairs = given

    def extent(self) -> tuple[int, int]:
        """A replaced word."""
        return 1, 1

    def takes_trigger(self, pixels: Tensor) -> Tensor:
        """(N,) True for texts with a word that the style replaces."""
        return torch.isin(pixels, pixels.new_tensor([a for a, _ in self.pairs])).any(1)

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """(N, L) token numbers in the style, the same for all clients."""
        require_tokens(self.name, pixels)
        styled = pixels.clone()
        for a, b in self.pairs:
            styled[pixels == a] = b
        return styled
