"""Docstrings taken apart."""

from fedguard.core.docstrings import described, sections

TEXT = """a + b: the sum.

    More of it.

    Args:
        a: the first,
            on two lines.
        b: the second: with a colon.

    Returns:
        The sum.

    Source: Somebody, A Book, 1999,
    page 3.
    """


def test_sections_by_title():
    found = sections(TEXT)
    assert found[""] == "a + b: the sum.\n\nMore of it."
    assert found["Returns"] == "The sum."
    assert " ".join(found["Source"].split()) == "Somebody, A Book, 1999, page 3."


def test_descriptions_of_parameters():
    assert described(TEXT) == {"a": "the first, on two lines.", "b": "the second: with a colon."}


def test_without_a_docstring_there_is_nothing():
    assert sections(lambda: 0) == {"": ""}
    assert described(lambda: 0) == {}
