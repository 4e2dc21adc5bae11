"""How much alike two texts are, and where one points: the `Similarity` port, and vectors for modes and the cache."""
