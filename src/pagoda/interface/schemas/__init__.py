"""What clients send and get: pydantic models, the source of validation and of the OpenAPI document."""
