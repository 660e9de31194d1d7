"""The process beside the agent that starts, limits, watches and ends host processes."""
