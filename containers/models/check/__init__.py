"""Whether a model's file keeps to `models.interface`, said in words, before it trains for a day.

``python -m models.check my_model.py`` takes a file anywhere, needs no data and no GPU, and drives what the
loop drives: the catalogue, the artefact, the optimiser's checkpoint, the endpoint's predictor.
"""
