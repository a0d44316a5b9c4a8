"""Drawing text from chunk models: continuations of many positions at once, and generation from a prompt."""
