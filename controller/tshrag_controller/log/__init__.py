"""The LOG: the one truth, appended by the leader, followed by everybody."""
