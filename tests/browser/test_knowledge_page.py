"""The knowledge page before the real application: documents sent, asked, and the cited passage seen where it stands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from playwright.async_api import FilePayload, Page, expect

from pagoda.core.settings import Settings
from tests.rings import Ring, limited
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

GUIDE = (
    "# Guide\n\n" + "Words before. 🙂 " * 40 + "\n\n## Moon\n\nThe moon is far away. 月亮很远。\n\n" + "After. " * 40
)
MODELS = (
    fake_model(
        "scripted",
        rules=[
            {"contains": "Last question: And its colour?", "text": "Which colour has the moon?"},
            {"contains": "slow", "token_seconds": 0.05, "text": "word " * 200},
            {"contains": "<img", "text": "<img src=x onerror='window.hacked=1'> [1]"},
        ],
        text="The moon is far [1]. It is round [9].",
    ),
    fake_model("vectors", task="embedding"),
)


RING = Ring(*(replace(limited(team, team), scopes=frozenset({"inference", "operate"})) for team in ("blue", "red")))


@pytest_asyncio.fixture(loop_scope="session")
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with running(settings, MODELS, RING) as started:
        yield started


def file(name: str, text: str) -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": text.encode()}


async def with_documents(page: Page, service: Service, *files: FilePayload) -> None:
    await page.goto(service.url + "/knowledge")
    await new_collection(page, "guide")
    await expect(page.locator("#title")).to_have_text("guide")
    await page.locator("#files").set_input_files(list(files))
    await expect(page.locator("#documents li")).to_have_count(sum(bool(each["buffer"]) for each in files))
    await page.get_by_label("Quote only").uncheck()


async def new_collection(page: Page, name: str) -> None:
    await page.get_by_role("button", name="New collection").click()
    await page.get_by_label(re.compile("^Name")).fill(name)
    await page.get_by_role("button", name="Save").click()


async def use_key(page: Page, secret: str) -> None:
    """Have the page use a key from its next request on."""
    await page.evaluate("secret => sessionStorage.setItem('pagoda.key', secret)", secret)


async def give_key(page: Page, secret: str) -> None:
    """Give the key that the page asks for."""
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_label("API key").fill(secret)
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_hidden()


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Question", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def raise_the_floor(page: Page) -> None:
    """Let no passage be near enough."""

    async def changed(route) -> None:  # type: ignore[no-untyped-def]
        body = route.request.post_data_json
        await route.continue_(post_data={**body, "floor": 1})

    await page.route("**/api/v1/rag/ask", changed)


async def test_a_citation_opens_the_passage_where_it_stands(page: Page, service: Service) -> None:
    await with_documents(page, service, file("guide.md", GUIDE), file("空.txt", ""))
    await expect(page.locator(".toast.bad")).to_contain_text("is empty")
    await ask(page, "How far is the moon?")
    answer = page.locator("article.answer")
    await expect(answer.locator(".answer-text")).to_have_text("The moon is far 1. It is round.")
    cite = answer.locator(".answer-text .cite")
    await expect(cite).to_have_count(1)
    await expect(answer.locator(".claims li.supported")).to_contain_text("The moon is far")
    evidence = answer.locator(".claims .cite").first
    await expect(evidence, "a number would be none of the answer's").to_have_accessible_name("The moon is far away.")
    await expect(evidence).to_have_attribute("title", "From guide.md")
    await evidence.click()
    marked = page.locator("#reader mark")
    await expect(marked).to_have_text("The moon is far away.")
    await cite.click()
    await expect(marked).to_contain_text("The moon is far away. 月亮很远。")
    await expect(marked).to_be_in_viewport()
    await expect(page.locator("#reader-title")).to_have_text("Guide")
    start, end = re.search(r"/(\d+)-(\d+)$", page.url).groups()  # type: ignore[union-attr]
    assert await marked.text_content() == GUIDE[int(start) : int(end)], "characters, not JavaScript's half ones"
    await page.reload()
    await expect(marked, "the address says what was open").to_contain_text("The moon is far away.")
    await page.keyboard.press("Escape")
    await expect(page.locator("#reader")).to_be_hidden()


async def test_an_address_opens_its_passage_in_its_collection(page: Page, service: Service) -> None:
    await with_documents(page, service, file("guide.md", GUIDE))
    await page.locator("#documents .open").click()
    await expect(page.locator("#reader-title")).to_have_text("Guide")
    collection, document, _ = page.url.partition("#")[2].split("/")
    assert collection == "guide"
    start = GUIDE.index("The moon")
    passage = f"#guide/{document}/{start}-{start + 8}"
    await new_collection(page, "other")
    await expect(page.locator("#title")).to_have_text("other")
    await expect(page.locator("#reader")).to_be_hidden()
    assert "#" not in page.url, "nothing is open"
    for address in ("#%", f"#%/{document}/0-5", "#guide"):
        await page.evaluate("address => { location.hash = address }", address)
        await expect(page.locator("#title"), "what names no passage changes nothing").to_have_text("other")
    await page.reload()
    await expect(page.locator("#title")).to_have_text("other")
    await page.evaluate("address => { location.hash = address }", passage)
    await expect(page.locator("#reader mark")).to_have_text("The moon")
    await expect(page.locator("#title")).to_have_text("guide")
    await page.get_by_role("button", name="Start over").click()
    await expect(page.locator("#reader")).to_be_hidden()
    assert "#" not in page.url
    await page.evaluate("address => { location.hash = address }", passage.replace("guide", "nowhere"))
    await expect(page.locator(".toast.bad")).to_contain_text("There is no collection “nowhere”")
    await expect(page.locator("#reader")).to_be_hidden()
    await expect(page.locator("#title")).to_have_text("guide")
    assert "#" not in page.url


async def test_a_key_is_asked_for_wherever_one_is_missing(page: Page, service: Service) -> None:
    await page.goto(service.url + "/knowledge")
    await use_key(page, "pk-gone")
    await page.reload()
    await give_key(page, "pk-blue")
    await expect(page.locator("#no-collections")).to_be_visible()
    await use_key(page, "pk-gone")
    await new_collection(page, "guide")
    await give_key(page, "pk-blue")
    await expect(page.locator("#title")).to_have_text("guide")
    await page.locator("#files").set_input_files([file("guide.md", GUIDE)])
    await expect(page.locator("#documents li")).to_have_count(1)
    await page.get_by_label("Quote only").uncheck()
    await use_key(page, "pk-gone")
    await ask(page, "How far is the moon?")
    await give_key(page, "pk-blue")
    await expect(page.locator("article.answer")).to_have_count(1)
    await expect(page.locator(".answer-text")).to_have_text("The moon is far 1. It is round.")
    await use_key(page, "pk-gone")
    await page.locator("#collections .open").click()
    await give_key(page, "pk-red")
    await expect(page.locator("#title"), "another team does not see it").to_have_text("Knowledge")
    await expect(page.locator("#collections li, #documents li, article")).to_have_count(0)


async def test_sentences_are_quoted_without_a_model(page: Page, service: Service) -> None:
    await with_documents(page, service, file("moon.txt", "The moon is far away.\n\n---\n"))
    await page.get_by_label("Quote only").check()
    await expect(page.locator("#model")).to_be_hidden()
    await ask(page, "How far is the moon?")
    await expect(page.locator(".answer-text")).to_contain_text("The moon is far away. ")
    await page.locator(".answer-text .cite").first.click()
    await expect(page.locator("#reader mark")).to_have_text("The moon is far away.")


async def test_a_follow_up_shows_what_was_searched_for(page: Page, service: Service) -> None:
    await with_documents(page, service, file("guide.md", GUIDE))
    await ask(page, "How far is the moon?")
    await expect(page.locator(".answer-text")).to_contain_text("far")
    await ask(page, "And its colour?")
    await expect(page.locator("article.answer").last).to_contain_text("Searched for: Which colour has the moon?")


async def test_what_is_deleted_is_gone_and_said_so(page: Page, service: Service) -> None:
    await with_documents(page, service, file("guide.md", GUIDE))
    await ask(page, "How far is the moon?")
    await expect(page.locator(".answer-text .cite")).to_be_visible()
    await page.get_by_role("button", name="Delete “Guide”", exact=True).click()
    await page.locator("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator("#documents li")).to_have_count(0)
    await page.locator(".answer-text .cite").click()
    await expect(page.locator("#reader-place")).to_contain_text("has been deleted")


async def test_what_a_model_writes_is_text(page: Page, service: Service) -> None:
    await with_documents(page, service, file("<img>.html", "<p>moon <script>window.hacked=2</script><img src=x></p>"))
    await ask(page, "<img src=x onerror='window.hacked=3'>")
    await expect(page.locator(".answer-text")).to_contain_text("<img src=x")
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("article img").count() == 0


async def test_stop_and_where_nothing_is_close(page: Page, service: Service) -> None:
    await raise_the_floor(page)
    await with_documents(page, service, file("guide.md", GUIDE))
    await ask(page, "How far is the moon?")
    await expect(page.locator("article.answer")).to_contain_text("The documents do not say.")
    await expect(page.locator("article.answer")).to_contain_text("What came nearest")
    await page.unroute("**/api/v1/rag/ask")
    await page.get_by_role("button", name="Start over").click()
    await ask(page, "slow")
    await expect(page.locator(".answer-text")).to_contain_text("word word")
    await page.get_by_role("button", name="Stop answering").click()
    await expect(page.locator("article.answer")).to_contain_text("Stopped.")


async def test_what_is_on_screen_changes_its_language(page: Page, service: Service) -> None:
    await with_documents(page, service, file("guide.md", GUIDE))
    await ask(page, "How far is the moon?")
    await expect(page.locator(".claims li.supported")).to_be_visible()
    await page.get_by_role("button", name="Passage 1: Guide").first.click()
    await expect(page.locator("#reader-place")).to_contain_text("characters")
    await page.get_by_role("button", name="中文").click()
    await expect(page.locator("#reader-place")).to_contain_text("个字符")
    await expect(page.get_by_role("button", name="段落 1：Guide")).to_have_count(2)
    await expect(page.locator(".answer-text")).to_have_text("The moon is far 1. It is round.")
    await expect(page.locator(".claims li.supported")).to_contain_text("有依据。")
    await expect(page.locator(".sources-title")).to_have_text(["来源", "文档对每个说法的印证"])


async def test_it_speaks_chinese_and_fits_a_phone(page: Page, service: Service) -> None:
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.goto(service.url + "/knowledge")
    await page.get_by_role("button", name="Open").first.click()
    await page.get_by_role("button", name="中文").click()
    await expect(page.get_by_role("button", name="新建文档集")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
