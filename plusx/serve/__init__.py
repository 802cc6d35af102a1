"""A trained model behind HTTP: admitted, decoded in processes of their own, answered in batches."""
