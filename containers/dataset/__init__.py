"""From what people uploaded and the endpoint captured to training and holdout examples."""
