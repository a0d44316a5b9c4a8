"""How a study gets on: the live panel and plain lines of its driver, and `watch` from elsewhere."""
