"""What makes outputs whole: atomic writes, locks, manifests."""
