"""Prompt files that these tests share."""

SENTIMENT = """\
name: sentiment
description: Says whether a review is favourable.
variables:
  text: {description: The review., trim: end}
  labels: {type: list, default: {en: [good, bad], zh: [好, 坏]}}
  strict: {type: boolean, default: false}
settings: {temperature: 0, max_tokens: 8, stop: ["\\n"]}
techniques:
  few-shot:
    count: 2
    examples:
      - {text: A joy., answer: good, reasoning: It says joy., language: en}
      - {text: Two hours lost., answer: bad, language: en}
      - {text: 很好看。, answer: 好, language: zh}
      - {text: So dull., answer: bad, language: en}
answer: {type: choice, choices: labels}
languages:
  en:
    task: Is the review favourable?
    input: "Review: {{text}}"
    requirements: "Answer with one word: {{labels}}.{{#strict}} No other word.{{/strict}}"
  zh:
    messages:
      - user: |
          判断影评，只答一个词：{{labels}}。

          {{> examples}}

          影评：{{text}}
    example: "影评：{{text}}"
"""
