"""What is in service: packages, deployments and the stretches of time that the monitor looks at."""
