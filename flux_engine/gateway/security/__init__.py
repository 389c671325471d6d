"""Who is asking: API keys, tokens and scopes."""
