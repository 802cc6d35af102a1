"""Image bytes become pixels here and nowhere else; Pillow and NumPy only, no torch."""
