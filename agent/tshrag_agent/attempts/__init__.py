"""One try of a job, from the command to the last report."""
