"""The pages (placeholder until the chat page lands)."""

from fastapi import APIRouter


def pages_router() -> APIRouter:
    """Routes of pages."""
    return APIRouter()
