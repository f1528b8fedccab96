"""What users send: untrusted files as lines, which of them are ground truth, and where the others go."""
