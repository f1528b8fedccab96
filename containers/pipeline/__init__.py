"""The SageMaker Pipeline: written with the SageMaker SDK, committed as what it generates."""
