"""The steps of a guard: build its methods, number rounds, and judge a round."""
