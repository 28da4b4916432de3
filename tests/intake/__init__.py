"""The door's parts by themselves, without a sidecar around them."""
