# The same as `python3 dev.py …`; every target does all the set-up it needs, once.
PYTHON ?= python3

.PHONY: run test lint fuzz audit setup
run test lint fuzz audit setup:
	@$(PYTHON) dev.py $@
