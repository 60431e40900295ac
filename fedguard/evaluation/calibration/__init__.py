"""What a detector and a policy would have done on the rounds of a recording."""
