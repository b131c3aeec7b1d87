"""The whole on real and synthetic data: data sets, small models, the demo."""
