"""Loads on this host: fetched by digest, kept, checked before every start."""
