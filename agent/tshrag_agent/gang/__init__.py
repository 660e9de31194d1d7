"""What jobs that start together say to each other: barriers and small messages."""
