"""The paper's experiments: runs in, a page with their numbers and figures out."""
