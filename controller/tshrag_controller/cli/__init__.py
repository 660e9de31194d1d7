"""The operators command line: it asks over the bus, like anybody else."""
