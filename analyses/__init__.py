"""What the units do: entropies and everything computed from traces and embeddings."""
