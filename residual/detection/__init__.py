"""Object detection: Faster R-CNN on the paper's networks (Section 4.3, appendices A and B)."""
