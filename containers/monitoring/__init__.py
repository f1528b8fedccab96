"""How good the model in service is, from few and biased labels."""
