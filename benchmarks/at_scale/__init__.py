"""What `scaling.py` is made of: processes that measure, a wire between them, figures of others, tables."""
