"""The vocabulary of the lab and its bus: the only package that agent and controller share."""
