"""SageMaker Pipelines: the definition language 2020-12-01, run with real jobs."""
