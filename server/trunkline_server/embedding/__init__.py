"""How much alike two texts are: the `Similarity` port."""
