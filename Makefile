# The same as `python3 dev.py …`; every target does all the set-up it needs, once.
PYTHON ?= python3

.PHONY: run test test-all lint setup
run test test-all lint setup:
	@$(PYTHON) dev.py $@
