"""The chat page before the real application with scripted models: page, API and engine speak to one another."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings
from pagoda.service.keys.book import LOCAL
from pagoda.service.keys.draft import Draft
from tests.services import Service, eventually, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODELS = (
    fake_model(
        "scripted",
        rules=[
            {"contains": "slow", "token_seconds": 0.05, "text": "word " * 200},
            {"contains": "break", "fault": "cut", "fault_at": 2, "text": "one two three"},
        ],
    ),
    fake_model("other"),
    fake_model("vectors", task="embedding"),
)


@pytest_asyncio.fixture(loop_scope="session")
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with running(settings, MODELS) as started:
        yield started


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def test_a_conversation_with_the_real_application(page: Page, service: Service) -> None:
    await page.goto(service.url)
    await expect(page.locator("#model option[value=scripted]")).to_have_count(1)
    await expect(page.locator("#model option[value=vectors]")).to_have_count(0)
    await page.locator("#model").select_option("scripted")
    await ask(page, "hello there")
    answer = page.locator("article.answer").last
    await expect(answer.locator(".prose")).to_contain_text("fake")
    await expect(answer.get_by_role("list", name="Tokens and time")).to_contain_text("3 tokens out")
    await page.reload()
    await expect(page.locator("article.answer .prose")).to_contain_text("fake")


async def test_stop_frees_the_engine(page: Page, service: Service) -> None:
    await page.goto(service.url)
    await page.locator("#model").select_option("scripted")
    await ask(page, "slow")
    await expect(page.locator("article.answer .prose")).to_contain_text("word word")
    await page.get_by_role("button", name="Stop answering").click()
    await eventually(lambda: b'status="cancelled"' in service.platform.telemetry.expose(), 5)


async def test_a_broken_answer_says_so(page: Page, service: Service) -> None:
    await page.goto(service.url)
    await page.locator("#model").select_option("scripted")
    await ask(page, "break")
    await expect(page.locator("article.answer").last).to_contain_text("stopped in mid-answer")


async def test_the_reference_lists_the_operations(page: Page, service: Service) -> None:
    await page.goto(service.url + "/docs")
    await expect(page.get_by_text("/v1/chat/completions", exact=True).first).to_be_visible()
    await expect(page.get_by_text("/api/v1/runs", exact=True).first).to_be_visible()


@pytest_asyncio.fixture(loop_scope="session")
async def locked(settings: Settings) -> AsyncIterator[Service]:
    """A service that needs keys."""
    keys = Keys(admin_key=Secret("the-operators-own-key"))
    async with running(dataclasses.replace(settings, keys=keys), MODELS) as started:
        yield started


async def test_signing_in_with_a_wrong_key_a_right_one_and_out_again(page: Page, locked: Service) -> None:
    await page.goto(locked.url)
    dialog = page.get_by_role("dialog", name="API key")
    await expect(dialog).to_contain_text("This service needs an API key.")
    await dialog.get_by_label("API key").fill("pk-wrong")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("This key is not known to the service.")
    secret = (await locked.platform.book.create(Draft(name="reader", models=("scripted",)), LOCAL)).secret
    await dialog.get_by_label("API key").fill(secret)
    await dialog.get_by_label("Keep it in this browser").check()
    await page.keyboard.press("Enter")
    await expect(page.locator("#model option")).to_have_count(1)
    await ask(page, "hello there")
    await expect(page.locator("article.answer .prose")).to_contain_text("fake")
    kept = "[sessionStorage['pagoda.key'], localStorage['pagoda.key']]"
    assert await page.evaluate(kept) == [secret, secret]
    await page.get_by_role("button", name="Data").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(dialog).to_contain_text("This service needs an API key.")
    assert await page.evaluate(kept) == [None, None]


async def test_a_revoked_key_is_told_in_the_readers_language(page: Page, locked: Service) -> None:
    issued = await locked.platform.book.create(Draft(name="short-lived"), LOCAL)
    await page.goto(locked.url)
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("API key").fill(issued.secret)
    await page.keyboard.press("Enter")
    await expect(page.locator("#model option")).not_to_have_count(0)
    await expect(dialog).to_be_hidden()
    await page.get_by_role("button", name="中文").or_(page.locator("#language")).first.click()
    await locked.platform.book.revoke("short-lived", LOCAL, keep_admin=True)
    await locked.platform.refresh_keys(issued.held.key.id)
    await page.locator("#prompt").fill("hello")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("此密钥已被吊销")
