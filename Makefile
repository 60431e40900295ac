# The same as `python3 dev.py …`; every target sets up what it needs, once.
PYTHON ?= python3

.PHONY: run test test-all test-cpus test-oldest lock lint docs coverage fuzz audit bench setup
run test test-all test-cpus test-oldest lock lint docs coverage fuzz audit bench setup:
	@$(PYTHON) dev.py $@
