"""What tests share: a real service, and upstreams that do as they are told."""
