"""Open-vocabulary labelling of whole image corpora."""
