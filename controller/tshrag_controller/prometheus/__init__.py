"""The lab for Prometheus: its own state to be scraped, its samples pushed."""
