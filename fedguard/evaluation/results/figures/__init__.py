"""Figures with matplotlib (extra: plot): one kind per module, one style for papers, docs and the report.

Each kind is a function ``draw(sheet, …) -> Figure``. :mod:`.style` knows sizes and colors, :mod:`.grid` small
multiples, legends and labels at the ends of lines; :mod:`fedguard.evaluation.results.plot` chooses the kind.
"""
