"""Recording: hooks into the training (Lightning says when) and into the model (torch says how)."""
