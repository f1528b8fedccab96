"""The training image: prepare a dataset, train a candidate, compare the candidates, monitor the champion."""
