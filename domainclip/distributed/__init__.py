"""Several processes: collectives with gradients, heartbeat, launcher."""
