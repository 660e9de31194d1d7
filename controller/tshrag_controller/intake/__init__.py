"""What comes in over the bus: reports, heartbeats, requests; each handed to the engine."""
