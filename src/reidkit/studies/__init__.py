"""Studies: many runs that differ in one thing, and the tables that compare them."""
