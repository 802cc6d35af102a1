"""Photos: where they lie, which split they belong to, and how they reach the network."""
