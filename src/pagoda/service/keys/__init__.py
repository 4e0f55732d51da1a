"""Who asks: keys, what each may do and spend, and a record of what was done with them."""
