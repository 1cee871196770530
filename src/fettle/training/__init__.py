"""Training: the story of a run and the loop."""
