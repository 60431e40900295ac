"""What every other part stands on: errors, ids, seeds, states, parameters, threads."""
