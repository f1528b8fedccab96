"""What a model is: its interface, the architectures, how images enter it, the artefact that holds it."""
