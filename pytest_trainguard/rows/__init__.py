"""Rows of training data in the forms that people keep them in: read, cut, lengthened, written."""
