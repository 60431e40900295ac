"""Keys of cells."""

import pytest

from fedguard.core.errors import ParameterError
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.keys import CellKey


def test_text_that_cannot_be_written_is_an_error():
    cell = Suite(training={"augment": "\ud800"}).cells()[0]
    with pytest.raises(ParameterError, match="a setting cannot be written"):
        CellKey.of(cell)


def test_a_key_holds_the_cell():
    cell = Suite(rounds=3).cells()[0]
    assert CellKey.of(cell).cell == cell
