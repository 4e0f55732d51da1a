"""The response cache: answers of engines kept for equal questions of the same tenant, and equal work done once."""
