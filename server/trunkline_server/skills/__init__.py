"""Skills from folders, who has installed which, and how a request comes by them."""
