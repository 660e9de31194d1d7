"""``tshrag``: what operators and CI type; a bus client like any other."""
