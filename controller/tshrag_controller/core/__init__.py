"""The pure core: decisions as functions of the lab, an input and the time."""
