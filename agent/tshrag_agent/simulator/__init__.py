"""Simulated boards: what a lab without hardware is tried on."""
