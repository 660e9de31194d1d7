"""What the agent tells: reports, samples, output, heartbeats."""
