"""Running suites: tasks, executors, checkpoints, progress."""
