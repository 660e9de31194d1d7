"""The embedded nats-server: its configuration, its accounts, its life."""
