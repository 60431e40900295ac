"""Pictures of results, for papers and for the report: one kind per module, one style.

A kind is a function that returns a :class:`.picture.Picture`; :mod:`.printed` draws it with matplotlib (extra
plot), :mod:`.svg` for the report. :mod:`.style` knows sizes and colors. ``client_map``, ``confusion`` and
``ranks`` are for papers only and have a function ``draw(sheet, …) -> Figure``.
:mod:`fedguard.evaluation.results.plot` chooses the kind.
"""
