"""A simulated federation: data, partitions, models, local training, and the loop over rounds."""
