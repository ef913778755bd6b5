"""Functions of the Gram matrix M alone: they return weights α, shape (T,), float64."""
