"""Processes that people start on this host: kept by a keeper each, so that they outlive us."""
