"""Runs several command lines of fedguard in one process, as each start takes seconds.

Each argument is one, a list in JSON; one that begins with "pytest" runs tests. Each one's output is preceded
by a line "$ fedguard <command>". A status other than 0 ends all.
"""

import json
import sys

import pytest

from fedguard.cli.entry import main

if __name__ == "__main__":
    for arguments in map(json.loads, sys.argv[1:]):
        print("$ fedguard", arguments[0], flush=True)
        sys.argv = ["fedguard", *arguments]
        try:
            sys.exit(pytest.main(arguments[1:])) if arguments[0] == "pytest" else main()
        except SystemExit as ended:
            if ended.code:
                raise
