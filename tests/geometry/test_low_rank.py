"""Inner products of products of thin factors, against the formed matrices."""

import torch

from fedguard.geometry.low_rank import PIECE, product_gram, vectors_of


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_the_gram_matrix_is_that_of_the_formed_products():
    left, right = draw(PIECE + 5, 7, 3), draw(3, PIECE + 5, 3, 11)[0]
    formed = (left @ right).flatten(1)
    torch.testing.assert_close(product_gram(left, right), formed @ formed.T)


def test_vectors_have_the_inner_products_of_a_singular_gram_matrix():
    rows = draw(6, 2)
    gram = rows @ rows.T
    found = vectors_of(gram)
    assert found.shape == (6, 6)
    torch.testing.assert_close(found @ found.T, gram)
