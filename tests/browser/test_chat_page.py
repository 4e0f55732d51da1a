"""The chat page in a real browser: what a person sees, does and keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

if TYPE_CHECKING:
    from tests.browser.conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def probe(name: str) -> str:
    """A function of ``probes/`` to run in the page."""
    return (Path(__file__).parent / "probes" / f"{name}.js").read_text("utf-8")


async def open_page(page: Page, service: Service) -> None:
    await page.goto(service.url)
    await expect(page.locator("#model option")).to_have_count(2)


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def ask_and_wait(page: Page, text: str) -> None:
    before = await page.locator("article.answer").count()
    await ask(page, text)
    await expect(page.locator("article.answer")).to_have_count(before + 1)
    await expect(page.locator("article.answer").last).not_to_have_attribute("aria-busy", "true")


async def test_an_answer_streams_in_and_shows_tokens_and_time(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask(page, "!Please hold")
    answer = page.locator("article.answer")
    await expect(answer.locator(".prose")).to_have_text("The first half,")
    await expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    service.go_on.set()
    await expect(answer.locator(".prose")).to_have_text("The first half, the second half.")
    stats = answer.get_by_role("list", name="Tokens and time")
    await expect(stats).to_contain_text("12 tokens in")
    await expect(stats).to_contain_text("2 tokens out")
    await expect(stats).to_contain_text(re.compile(r"\d tokens/s"))
    await expect(stats).to_contain_text(re.compile(r"first token [\d.]+ s"))
    assert service.requests[0] == {
        "model": "small-chat",
        "messages": [{"role": "user", "content": "!Please hold"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("by", ["button", "escape"])
async def test_stop_ends_the_answer_here_and_on_the_server(page: Page, service: Service, by: str) -> None:
    await open_page(page, service)
    await ask(page, "!Please hold")
    await expect(page.locator(".prose")).to_have_text("The first half,")
    if by == "button":
        await page.get_by_role("button", name="Stop answering").click()
    else:
        await page.keyboard.press("Escape")
    await expect(page.locator("article.answer")).to_contain_text("Stopped.")
    await expect(page.locator(".prose")).to_have_text("The first half,")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert service.cancelled.wait(5)
    await ask_and_wait(page, "And now?")
    assert [message["role"] for message in service.requests[-1]["messages"]] == ["user", "assistant", "user"]


async def test_reload_keeps_conversations_and_marks_an_answer_that_was_cut_off(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "Hello there")
    await page.reload()
    await expect(page.locator("article.answer .prose")).to_have_text("You said: Hello there")
    await expect(page.locator(".stats")).to_contain_text("12 tokens in")
    await ask(page, "!Please hold")
    await expect(page.locator(".prose").last).to_have_text("The first half,")
    await page.reload()
    await expect(page.locator("article.answer").last).to_contain_text("The first half,")
    await expect(page.locator("article.answer").last).to_contain_text(
        "The page was closed before this answer was complete."
    )
    await expect(
        page.get_by_role("navigation").get_by_role("button", name="Hello there", exact=True)
    ).to_have_attribute("aria-current", "page")


async def test_markdown_code_and_tables_are_shown_and_no_image_is_fetched(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "!Show markdown")
    answer = page.locator("article.answer .prose")
    await expect(answer.get_by_role("heading", name="Sorting")).to_be_visible()
    await expect(answer.locator(".hljs-keyword").first).to_have_text("def")
    await expect(answer.get_by_role("table")).to_contain_text("n log n")
    await expect(answer.locator("td").last).to_have_css("text-align", "right")
    link = answer.get_by_role("link", name="the manual")
    assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert await link.get_attribute("target") == "_blank"
    await expect(answer.get_by_role("link", name="a picture")).to_be_visible()
    await expect(answer.locator("img")).to_have_count(0)
    await answer.get_by_role("button", name="Copy code").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == "def order(items: list[int]) -> list[int]:\n    return sorted(items)  # a new list"


async def test_growing_markdown_ends_as_if_drawn_at_once(page: Page, service: Service) -> None:
    await open_page(page, service)
    different = await page.evaluate(
        probe("growing"),
        [
            "# A\n\ntext *with* `code`\n\n- one\n- two\n\n  more of two\n\n1. x\n   - y\n\n> quote\n> more\n\n---\n",
            "foo\n***bar** baz\n\n```js\nlet a = 1;\n\n\nlet b;\n```\n\n~~~\nopen fence",
            "| a | b |\n|---|---|\n| 1 | 2 |\n\nTitle\n=====\n\npara\n- list right after\n- again\n\n\n\nlast",
            "中文段落，**加粗**。\n\n1. 第一\n2. 第二\n\n```python\nprint('你好')\n```\n",
        ],
    )
    assert different == []


async def test_what_a_model_writes_runs_no_script(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "!Attack with xss")
    await page.locator("article.answer .prose a").evaluate_all(
        "(links) => links.forEach((link) => link.target === '_blank' || link.click())"
    )
    assert await page.evaluate("window.hacked") is None
    assert (
        await page.locator(".prose")
        .locator("script, img, svg:not(.icon svg), iframe, style, base, form, math, [onload], [onerror]")
        .count()
        == 0
    )
    assert await page.locator(".prose a").evaluate_all("(links) => links.map((link) => link.protocol)") == []
    assert await page.locator("#send").count() == 1
    await page.reload()
    await expect(page.locator("article.answer .prose")).to_contain_text("window.hacked = 1")
    assert await page.evaluate("window.hacked") is None


async def test_the_sanitizer_alone_stops_markup_that_the_parser_let_through(
    context: BrowserContext, service: Service
) -> None:
    page = await context.new_page()  # the policy reports handlers in the sanitizer's own, inert copy: expected here
    await open_page(page, service)
    payloads = [
        "<img src=x onerror=window.hacked=1>",
        "<svg><script>window.hacked=2</script></svg>",
        "<svg><a xlink:href='javascript:window.hacked=3'><text>x</text></a></svg>",
        "<a href=' javascript:window.hacked=4'>x</a>",
        "<a href='vbscript:x'>x</a><a href='data:text/html,x'>y</a><a href='//evil.example'>z</a>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.hacked=5&gt;'>",
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=6>",
        "<p style='position:fixed' class='send toast' id='prompt' data-i18n='x'>x</p>",
        "<noscript><p title='</noscript><img src=x onerror=window.hacked=7>'>",
        "<template><img src=x onerror=window.hacked=8></template><object data=x></object><embed src=x>",
        "<input autofocus onfocus=window.hacked=9>",
        "<video src=x onerror=window.hacked=10></video><link rel=stylesheet href=//evil.example>",
    ]
    kept = await page.evaluate(
        probe("sanitizing"),
        payloads,
    )
    assert kept["hacked"] is None
    assert set(kept["attributes"]) <= {"rel", "target"}
    assert set(kept["tags"]) <= {"a", "p", "table"}


async def test_frames_are_read_however_they_are_cut(page: Page, service: Service) -> None:
    await open_page(page, service)
    wrong = await page.evaluate(probe("frames"))
    assert wrong == []
    await ask_and_wait(page, "!Send it in bytes")
    await expect(page.locator(".prose")).to_have_text("Grüße, 世界! 🙂")
    await expect(page.locator(".stats")).to_contain_text("3 tokens out")


async def test_an_error_frame_is_shown_with_its_request_id(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "!Please break")
    answer = page.locator("article.answer")
    await expect(answer).to_contain_text("It began well,")
    await expect(answer.get_by_role("group", name="Error")).to_contain_text("The engine stopped; try again.")
    await expect(answer.locator(".request-id")).to_contain_text("req-1")
    await answer.get_by_role("button", name="Answer again").click()
    await expect(answer.locator(".request-id")).to_contain_text("req-2")
    assert len(service.requests[1]["messages"]) == 1


@pytest.mark.parametrize(
    ("script", "sentence"),
    [("refuse", "this model's context holds 8192"), ("cut", "The connection ended before the answer was complete")],
)
async def test_a_refusal_and_a_cut_stream_are_said_in_a_sentence(
    page: Page, service: Service, script: str, sentence: str
) -> None:
    await open_page(page, service)
    await ask_and_wait(page, f"!Please {script}")
    await expect(page.get_by_role("group", name="Error")).to_contain_text(sentence)
    await expect(page.locator(".request-id")).to_contain_text("req-1")
    await expect(page.get_by_role("status")).to_contain_text(sentence)


async def test_a_server_that_is_gone_is_said_and_forgotten_when_it_is_back(
    page: Page, service: Service, context: BrowserContext
) -> None:
    async def drop(route: Route) -> None:
        await route.abort("connectionrefused")

    await context.route("**/v1/**", drop)
    await page.goto(service.url)
    banner = page.get_by_role("alert")
    await expect(banner).to_contain_text("The server cannot be reached.")
    await context.unroute("**/v1/**", drop)
    await banner.get_by_role("button", name="Try again").click()
    await expect(banner).to_be_hidden()
    await expect(page.locator("#model option")).to_have_count(2)


async def test_reasoning_is_folded_away_and_length_limit_is_said(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "!Please think")
    answer = page.locator("article.answer")
    await expect(answer).to_contain_text("Cut off at the length limit.")
    await expect(answer.locator(".thought")).to_be_hidden()
    await answer.get_by_text("Reasoning", exact=True).click()
    await expect(answer.locator(".thought")).to_have_text("Let me <b>see</b>.")


async def test_model_and_settings_go_into_the_request_and_stay(page: Page, service: Service) -> None:
    await open_page(page, service)
    await expect(page.get_by_role("combobox", name="Model")).to_have_value("small-chat")
    await page.get_by_role("combobox", name="Model").select_option("large-chat")
    await page.get_by_role("button", name="Settings", exact=True).click()
    await page.get_by_label("System prompt").fill("Be brief.")
    await page.get_by_label("Temperature").fill("0.3")
    await page.get_by_label("Length").fill("50")
    await ask_and_wait(page, "Hello")
    await page.reload()
    await expect(page.get_by_role("combobox", name="Model")).to_have_value("large-chat")
    await page.get_by_role("button", name="Settings", exact=True).click()
    await page.get_by_label("Length").fill("0")
    await expect(page.get_by_label("Length")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Temperature").fill("")
    await ask_and_wait(page, "Again")
    first, second = service.requests
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("large-chat", 0.3, 50)
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "temperature" not in second
    assert second["max_tokens"] == 50


async def test_edit_resends_and_regenerate_asks_again(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "First")
    await ask_and_wait(page, "Second")
    await page.locator("article.question").first.hover()
    await page.locator("article.question").first.get_by_role("button", name="Edit message").click()
    await page.get_by_role("textbox", name="Edit message").fill("Changed")
    await page.locator("form.edit").get_by_role("button", name="Send").click()
    await expect(page.locator("article.answer .prose")).to_have_text("You said: Changed")
    await page.get_by_role("button", name="Answer again").click()
    await expect(page.locator("article.answer")).not_to_have_attribute("aria-busy", "true")
    assert [[message["content"] for message in request["messages"]] for request in service.requests[2:]] == [
        ["Changed"],
        ["Changed"],
    ]
    await expect(page.locator("article")).to_have_count(2)


async def test_rename_search_and_delete(page: Page, service: Service) -> None:
    await open_page(page, service)
    for text in ("Apples are red", "Bananas are bent"):
        await page.get_by_role("button", name="New chat").click()
        await ask_and_wait(page, text)
    nav = page.get_by_role("navigation")
    await nav.get_by_role("button", name="Options of “Apples are red”").click()
    await page.get_by_role("menuitem", name="Rename").click()
    await page.get_by_label("Title").fill("Fruit")
    await page.keyboard.press("Enter")
    await expect(nav.get_by_role("button", name="Fruit", exact=True)).to_be_visible()
    await nav.get_by_label("Search").fill("BENT")
    await expect(nav.get_by_role("button", name="Fruit", exact=True)).to_be_hidden()
    await nav.get_by_label("Search").fill("")
    await nav.get_by_role("button", name="Options of “Fruit”").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(nav.get_by_role("button", name="Fruit", exact=True)).to_be_hidden()
    await page.reload()
    await expect(nav.locator("li")).to_have_count(1)


async def test_export_and_import_bring_everything_back(page: Page, service: Service, tmp_path: Path) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "Was kostet 世界?")
    await ask_and_wait(page, "!Show markdown")
    before = await page.evaluate(
        "Object.entries(localStorage).filter(([key]) => key.startsWith('pagoda.conversation.'))"
    )
    for name, target in (("Export all as JSON", "all.json"), ("Export all as Markdown", "all.md")):
        await page.get_by_role("button", name="Data").click()
        async with page.expect_download() as waiting:
            await page.get_by_role("menuitem", name=name).click()
        await (await waiting.value).save_as(tmp_path / target)
    text = (tmp_path / "all.md").read_text("utf-8")
    assert "# Was kostet 世界?" in text
    assert "return sorted(items)" in text
    exported = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert exported["conversations"] == [json.loads(value) for _, value in before]

    await page.locator("#import-file").set_input_files(tmp_path / "all.json")
    await expect(page.locator(".toast").last).to_have_text("Imported: 0. Already here: 1. Not kept: 0.")
    await page.get_by_role("button", name="Data").click()
    await page.get_by_role("menuitem", name="Delete all").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("navigation").locator("li")).to_have_count(0)
    for _ in range(2):
        await page.locator("#import-file").set_input_files(tmp_path / "all.json")
    await expect(page.locator(".toast").last).to_have_text("Imported: 0. Already here: 1. Not kept: 0.")
    after = await page.evaluate(
        "Object.entries(localStorage).filter(([key]) => key.startsWith('pagoda.conversation.'))"
    )
    assert [json.loads(value) for _, value in after] == [json.loads(value) for _, value in before]
    (tmp_path / "bad.json").write_text(
        '{"format": "pagoda-conversations", "conversations": [{"messages": [{"role": "x"}]}]}'
    )
    await page.locator("#import-file").set_input_files(tmp_path / "bad.json")
    await expect(page.locator(".toast").last).to_contain_text("damaged")


async def test_a_full_storage_is_said_and_the_chat_goes_on(page: Page, service: Service) -> None:
    await open_page(page, service)
    await page.evaluate(probe("full_storage"))
    await ask_and_wait(page, "A longer message that has no room left in the storage of this browser")
    await expect(page.get_by_role("alert")).to_contain_text("storage is full")
    await expect(page.locator(".prose")).to_contain_text("You said: A longer message")


async def test_language_follows_the_browser_can_be_switched_and_is_kept(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "Hello")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await page.locator("#language").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page.get_by_role("button", name="发送")).to_be_visible()
    await expect(page.locator(".stats")).to_contain_text("输入 12 tokens")
    await page.reload()
    await expect(page.get_by_label("消息", exact=True)).to_be_focused()


async def test_chinese_browsers_start_in_chinese(service: Service, context: BrowserContext) -> None:
    assert context.browser is not None
    chinese = await context.browser.new_context(locale="zh-CN")
    page = await chinese.new_page()
    await page.goto(service.url)
    await expect(page.get_by_role("button", name="新对话")).to_be_visible()
    await chinese.close()


async def test_theme_follows_the_system_and_the_switch(page: Page, service: Service) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    await page.emulate_media(color_scheme="dark")
    await open_page(page, service)
    dark = await page.evaluate(ground)
    await page.get_by_role("button", name="Theme: as the system").click()
    light = await page.evaluate(ground)
    assert light != dark
    await page.reload()
    await expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert await page.evaluate(ground) == light


async def test_enter_of_an_input_method_does_not_send(page: Page, service: Service) -> None:
    await open_page(page, service)
    box = page.get_by_label("Message", exact=True)
    await box.fill("ni hao")
    for init in ({"isComposing": True}, {"keyCode": 229}):
        await box.evaluate(
            """(box, init) => box.dispatchEvent(
                new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...init }))""",
            init,
        )
    client = await page.context.new_cdp_session(page)
    await client.send("Input.imeSetComposition", {"text": "你好", "selectionStart": 2, "selectionEnd": 2})
    await client.send("Input.insertText", {"text": "你好"})
    await expect(page.locator("article")).to_have_count(0)
    await box.press("Shift+Enter")
    await expect(box).to_have_value("ni hao你好\n")
    assert service.requests == []
    await box.press("Enter")
    await expect(page.locator("article.question .bubble")).to_have_text("ni hao你好")


async def test_the_page_can_be_used_by_keyboard_alone(page: Page, service: Service) -> None:
    await open_page(page, service)
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.keyboard.type("First question")
    await page.keyboard.press("Enter")
    await expect(page.locator(".prose")).to_have_text("You said: First question")
    await page.keyboard.press("ArrowUp")
    await expect(page.get_by_role("textbox", name="Edit message")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+Shift+O")
    await expect(page.locator("#welcome")).to_be_visible()
    await page.keyboard.press("Control+k")
    await expect(page.get_by_label("Search")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    menu = page.get_by_role("menuitem")
    await expect(menu.first).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(menu.last).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Options of “First question”")).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.get_by_role("button", name="New chat").focus()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="New chat")).to_be_focused()


async def test_names_and_roles_are_there_for_screen_readers(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask_and_wait(page, "Hello")
    await expect(page.get_by_role("status")).to_have_text("Answer: You said: Hello")
    await expect(page.get_by_role("log", name="Messages")).to_have_attribute("aria-live", "off")
    await expect(page.locator("body")).to_match_aria_snapshot(
        """
        - navigation "Conversations":
          - button "New chat"
          - searchbox "Search"
          - heading "Today" [level=2]
          - list:
            - listitem:
              - button "Hello"
              - button "Options of “Hello”"
        - banner:
          - heading "Hello" [level=1]
          - combobox "Model"
          - button "Settings"
        - main "Conversation":
          - log "Messages":
            - article:
              - heading "You" [level=2]
            - article:
              - heading "small-chat" [level=2]
              - paragraph: "You said: Hello"
              - list "Tokens and time"
          - form "Write a message":
            - textbox "Message"
            - button "Send" [disabled]
        """
    )
    unnamed = await page.locator("button, a, input, select, textarea").evaluate_all(
        """(all) => all
            .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length || one.hidden))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_enough_contrast(page: Page, service: Service, scheme: str) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await open_page(page, service)
    ratios = await page.evaluate(probe("contrast"))
    assert len(ratios) > 20
    assert {name: ratio for name, ratio in ratios if ratio < 4.5} == {}


@pytest.fixture(params=[True, False], ids=["told", "stripped"])
def below(request: pytest.FixtureRequest, start: Callable[..., Service]) -> Iterator[Service]:
    running = start(root_path="/tools/pagoda", proxy_tells=request.param)
    yield running
    running.stop()


async def test_the_page_and_the_reference_work_below_a_sub_path(page: Page, below: Service) -> None:
    await open_page(page, below)
    await ask_and_wait(page, "!Show markdown")
    await expect(page.locator(".hljs-keyword").first).to_have_text("def")
    async with page.context.expect_page() as opening:
        await page.get_by_role("link", name="API").click()
    reference = await opening.value
    await reference.locator("#operations-default-models_v1_models_get").click()
    await reference.get_by_role("button", name="Execute").click()
    await expect(reference.locator(".live-responses-table")).to_contain_text("small-chat")


async def test_the_reference_page_keeps_to_its_origin_and_policy(page: Page, service: Service) -> None:
    await page.goto(f"{service.url}docs")
    await expect(page.locator(".opblock")).to_have_count(2)
    await page.locator(".opblock").first.click()
    await expect(page.locator(".opblock.is-open")).to_have_count(1)


async def test_a_wanted_key_is_asked_for_and_kept_for_this_tab(page: Page, start: Callable[..., Service]) -> None:
    locked = start(key="secret-key")
    try:
        await page.goto(locked.url)
        dialog = page.get_by_role("dialog", name="API key")
        await expect(dialog).to_contain_text("This service needs an API key.")
        await dialog.get_by_label("API key").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_label("API key")).to_have_value("")
        await dialog.get_by_label("API key").fill("secret-key")
        await page.keyboard.press("Enter")
        await expect(page.locator("#model option")).to_have_count(2)
        await expect(page.get_by_role("alert")).to_be_hidden()
        await page.reload()
        await ask_and_wait(page, "Hello")
        await expect(page.locator(".prose")).to_have_text("You said: Hello")
        assert await page.evaluate("[sessionStorage['pagoda.key'], localStorage['pagoda.key']]") == ["secret-key", None]
    finally:
        locked.stop()


async def test_the_view_stays_at_the_end_only_for_a_reader_who_is_there(page: Page, service: Service) -> None:
    await page.set_viewport_size({"width": 900, "height": 500})
    await open_page(page, service)
    await ask_and_wait(page, "!Make it long")
    gap = "((s) => s.scrollHeight - s.scrollTop - s.clientHeight)(document.getElementById('scroller'))"
    assert await page.evaluate(gap) < 50
    await page.locator("#scroller").hover()
    await page.mouse.wheel(0, -3000)
    await expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    top = await page.evaluate("document.getElementById('scroller').scrollTop")
    await page.evaluate("document.getElementById('thread').append(document.createElement('pre'))")
    assert await page.evaluate("document.getElementById('scroller').scrollTop") == top
    await page.get_by_role("button", name="Go to the end").click()
    await expect(page.get_by_role("button", name="Go to the end")).to_be_hidden()
    assert await page.evaluate(gap) < 50


async def test_a_long_answer_is_drawn_at_most_once_a_frame_and_only_at_its_end(page: Page, service: Service) -> None:
    await open_page(page, service)
    await page.evaluate(probe("drawing"))
    await ask_and_wait(page, "!Make it long")
    await expect(page.locator(".prose > p")).to_have_count(2000)
    removals, frames = await page.evaluate("[window.removals, window.framesSeen]")
    *growing, final = removals
    assert 0 < len(growing) <= frames
    assert max(growing) <= 8  # the last few blocks, not the hundreds before them
    assert final > max(growing)  # drawn once more as a whole


async def test_the_page_fits_a_phone(page: Page, service: Service) -> None:
    await page.set_viewport_size({"width": 360, "height": 700})
    await open_page(page, service)
    await ask_and_wait(page, "!Show markdown")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert (
        await page.evaluate(
            "document.getElementById('scroller').scrollWidth - document.getElementById('scroller').clientWidth"
        )
        <= 0
    )
    nav = page.get_by_role("navigation")
    await expect(nav).to_be_hidden()
    await page.get_by_role("button", name="Open conversations").click()
    await expect(nav.get_by_role("button", name="New chat")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(nav).to_be_hidden()
    await expect(page.get_by_role("button", name="Open conversations")).to_be_focused()


async def test_two_conversations_are_answered_at_once(page: Page, service: Service) -> None:
    await open_page(page, service)
    await ask(page, "!Please hold")
    await expect(page.locator(".prose")).to_have_text("The first half,")
    await page.get_by_role("button", name="New chat").click()
    await ask_and_wait(page, "Meanwhile")
    await expect(page.locator(".prose")).to_have_text("You said: Meanwhile")
    service.go_on.set()
    await page.get_by_role("navigation").get_by_role("button", name="!Please hold", exact=False).first.click()
    await expect(page.locator(".prose")).to_have_text("The first half, the second half.")


async def test_a_long_conversation_opens_at_its_end_and_draws_the_rest_when_near(page: Page, service: Service) -> None:
    question = {"id": "q", "role": "user", "content": "Again"}
    answer = {"role": "assistant", "content": "## Heading\n\ntext\n\n" * 5, "stats": {"total": 1.0}}
    messages = [{**(answer if number % 2 else question), "id": f"m{number}"} for number in range(400)]
    await open_page(page, service)
    conversation = {"id": "long", "created": 1, "updated": 1, "settings": {}, "messages": messages}
    await page.evaluate("(one) => localStorage.setItem('pagoda.conversation.long', JSON.stringify(one))", conversation)
    await page.reload()
    await page.get_by_role("navigation").locator("li .open").click()
    await expect(page.locator("article")).to_have_count(400)
    await expect(page.locator("article.answer").last.locator("h2").nth(1)).to_be_in_viewport()
    first = page.locator("article.answer").first
    await expect(first.locator(".prose h2")).to_have_count(0)
    await page.locator("#scroller").evaluate("(scroller) => scroller.scrollTo(0, 0)")
    await expect(first.locator(".prose h2")).to_have_count(5)
    await page.locator("#scroller").evaluate("(scroller) => scroller.scrollTo(0, 0)")
    await expect(first.get_by_role("heading", name="Heading").first).to_be_in_viewport()
