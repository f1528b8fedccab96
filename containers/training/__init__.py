"""Training one candidate, and the training image's entry point."""
