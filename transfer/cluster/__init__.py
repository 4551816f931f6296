"""Training many runs at once, on this machine or a Ray cluster; DVC judges what is stale."""
