"""One module per function: parsed input and ports in, the function's output out. No AWS in here."""
