"""The Trunkline service: one contract, any provider behind it."""
