"""Files behind URLs, read by ranges. Knows names, redirects and short bodies; must not know GGUF."""
