"""Whether to train, and what came of it: triggers, the claim, the policy, decisions and their words."""
