"""What a dataset version holds: statements, which of them hold, and what is captured."""
