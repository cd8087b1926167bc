"""Trained networks used: loaded, tested, averaged, looked into."""
