"""Scraping of endpoints that a load declares, beside its job."""
