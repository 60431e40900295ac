"""What methods are: rounds, scores, decisions, the base classes, and the registry that finds them by name."""
