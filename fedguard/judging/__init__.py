"""What a guard is made of: its parts, the numbers of rounds, and the way of a round to a verdict."""
