"""The controller: a pure core inside thin edges; and the operators command line."""
