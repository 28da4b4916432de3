"""What the documents say about the code is so: layers, bounds, names."""
