"""What is told of every round: event streams and metrics."""
