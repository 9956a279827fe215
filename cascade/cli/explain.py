"""``cascade explain``: every effective value of a policy, and where it came from."""
