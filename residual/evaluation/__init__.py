"""From a network and pictures to numbers."""
