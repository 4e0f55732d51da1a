"""New rows: from where, by what, the same by the same seed, and dropped when meaning or label moved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pagoda.application.augmenting import means_of
from pagoda.core.errors import InvalidRequest
from pagoda.model.data.augmentation import PROVENANCE, Means, Method, Plan, augment, changeable
from pagoda.model.data.rows import Row
from tests.doors import ScriptedDoor

ROWS = [
    Row(n, "completion", {"prompt": f"Where is parcel {n} of mine?", "completion": "Here."}, "f") for n in range(1, 9)
]


async def test_noise_and_case_keep_the_answer_and_tell_their_origin() -> None:
    plan = Plan(methods=("noise", "case"), share=1.5, seed=3)
    done = await augment(ROWS, plan, Means())
    assert len(done.added) == 12
    for row in done.added:
        origin = row[PROVENANCE]
        old = ROWS[origin["row"] - 1]
        assert row["completion"] == "Here."
        assert row["prompt"] != changeable(old)
        assert (origin["source"], origin["seed"], origin["similarity"], origin["label_checked"]) == (
            "f",
            3,
            None,
            False,
        )
        assert "".join(mark for mark in row["prompt"] if mark.isdigit()) == str(old.number), "digits stay"
    assert {row[PROVENANCE]["method"] for row in done.added} == {"noise", "case"}
    assert await augment(ROWS, plan, Means()) == done
    assert await augment(ROWS, Plan(methods=("noise", "case"), share=1.5, seed=4), Means()) != done


async def test_what_has_no_case_is_not_added_as_it_was() -> None:
    rows = [Row(1, "text", {"text": "包裹在哪里？"})]
    done = await augment(rows, Plan(methods=("case",), share=1), Means())
    assert (done.added, [each["reason"] for each in done.dropped]) == ((), ["unchanged"])


async def test_what_moves_in_meaning_or_label_is_dropped_with_the_reason() -> None:
    async def rewrite(method: Method, text: str) -> str:
        return text.replace("good", "bad") if "good" in text else text.replace("is", "seems")

    async def alike(old: str, new: str) -> float:
        return 0.3 if "far" in old else 0.9

    async def label(text: str, labels: Sequence[str]) -> str:
        return labels["bad" in text]

    texts = ["it is good", "it is far away", "it is fine", "nothing changes"]
    rows = [Row(n, "classification", {"text": text, "label": "ab"[n % 2]}) for n, text in enumerate(texts, 1)]
    means = Means(rewrite=rewrite, alike=alike, label=label, model="m")
    done = await augment(rows, Plan(methods=("paraphrase",), share=1), means)
    assert [(row["text"], row[PROVENANCE]["model"], row[PROVENANCE]["label_checked"]) for row in done.added] == [
        ("it seems fine", "m", True)
    ]
    assert {each["row"]: each["reason"] for each in done.dropped} == {1: "label", 2: "meaning", 4: "unchanged"}


async def test_templates_and_chats() -> None:
    chat = Row(
        1, "chat", {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]}
    )
    done = await augment([chat], Plan(methods=("template",), share=1, templates=("Please tell me: {text}",)), Means())
    assert done.added[0]["messages"] == [
        {"role": "user", "content": "Please tell me: Where?"},
        {"role": "assistant", "content": "Here."},
    ]
    assert chat.content["messages"][0]["content"] == "Where?", "the old row is as it was"


async def test_the_models_of_the_service_rewrite_in_both_languages_by_packaged_prompts() -> None:
    door = ScriptedDoor(lambda text, _: text + " indeed")
    means = means_of(door, "chat-model", "embedding-model")
    plan = Plan(methods=("paraphrase", "back_translation"), share=1, least_alike=0.3)
    rows = [ROWS[0], Row(2, "completion", {"prompt": "我的包裹在哪里？ abc", "completion": "在这里。"})]
    done = await augment(rows, plan, means)
    assert len(done.added) == 2
    assert {row[PROVENANCE]["method"] for row in done.added} == {"paraphrase", "back_translation"}
    assert all(0.3 <= row[PROVENANCE]["similarity"] <= 1.0001 for row in done.added)
    assert len(door.asked) == 3, "a paraphrase is one call, there and back are two"
    said = ["".join(str(message["content"]) for message in asked.messages or ()) for asked in door.asked]
    assert any("译" in text for text in said) or any("改写" in text for text in said)
    assert {call.purpose for call in door.calls} == {"batch"}


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no augmentation 'magic'"):
        Plan(methods=("magic",))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="share above 0"):
        Plan(methods=("noise",), share=0)
    with pytest.raises(InvalidRequest, match=r"with \{text\} in it"):
        Plan(methods=("template",))


async def test_a_served_method_without_a_service_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="need a served model"):
        await augment(ROWS, Plan(methods=("paraphrase",)), Means())
