"""Inside a traced run's process: a GPU that is not there, and the births and deaths of the tensors on it."""
