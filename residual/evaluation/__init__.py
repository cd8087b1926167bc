"""From a network and images to numbers."""
