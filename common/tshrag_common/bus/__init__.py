"""NATS: the one door of the library; connection, JetStream, publishing, pulling."""
