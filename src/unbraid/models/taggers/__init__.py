"""Sound taggers: what they hear becomes a query."""
