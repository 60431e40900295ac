# The same as `python3 dev.py …`; every target does all the set-up it needs, once.
PYTHON ?= python3

.PHONY: run test lint bench setup
run test lint bench setup:
	@$(PYTHON) dev.py $@
