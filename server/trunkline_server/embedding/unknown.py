"""For a gateway without an embedding model."""


class Unknown:
    """Knows of no texts how much alike they are."""

    async def cosine(self, first: str, second: str) -> float | None:
        """Always None."""
        return None

    async def vector(self, text: str, wait_s: float = 0.0) -> None:
        """Always None."""

    async def glimpse(self, text: str, wait_s: float = 0.0) -> None:
        """Always None."""

    async def close(self) -> None:
        """Nothing to do."""
