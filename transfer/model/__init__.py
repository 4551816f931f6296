"""The network to take away."""
