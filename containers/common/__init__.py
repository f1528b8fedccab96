"""What the training and the inference image share: SageMaker's contract, images, logs, errors."""
