"""From traces to pictures: arrays in, arrays out."""
