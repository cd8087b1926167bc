"""One training loop; models and data arrive as arguments."""
