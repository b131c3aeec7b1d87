"""What people see: figures, the live page and the worker behind it."""
