"""The whole loop on one machine, played by a user who has nothing but AWS APIs."""
