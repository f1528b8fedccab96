"""How good the candidates are beside the model in service."""
