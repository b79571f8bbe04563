"""Answers put together at random from what models write around an answer.

That is echoed options, few-shot transcripts, Markdown, LaTeX, refusals.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from batchfleet.scoring.answer_keys import Options
from batchfleet.scoring.choice import choose
from batchfleet.scoring.final_number import calculate

SEED = 20261128
EXAMPLES = 300

SETS = (
    ("to the right", "to the left", "straight up", "to neither side"),
    ("the first answer", "the best answer", "no answer", "the end result"),
    ("It is correct", "It is not correct", "They are the best", "All of the above are correct"),
    ("joule", "watt", "pascal", "newton"),
    ("$x^2$", "$\\frac{1}{2}$", "$2\\pi r$", "$\\sqrt{2}$"),
    ("both A and B", "A only", "B and C", "none of these is right"),
    ("Yes", "No", "Maybe", "It cannot be known"),
    ("one result", "no answer", "what is correct", "what is wrong", "so it is"),
    ("The left hand is best", "The answer is always 5", "I think so, therefore it is right", "Wait, no"),
)
STEMS = (
    "To which side does the Coriolis effect turn winds?",
    "Which of these birds cannot fly?",
    "Which of the following statements is correct?",
    "What is the right answer to a question that nobody is able to answer?",
    "A man does not know the way and is unable to read the map. Which statement is the best?",
    "He won't say whether the result is right. What is the answer:",
    "Complete the sentence: the result is",
    "I cannot lift the box, and I do not know its mass. Which way does it push back?",
)
TAILS = (
    "",
    "\n\nAnswer with the letter only.",
    "\nAnswer:",
    '\nReply in JSON, such as {"answer": "A"}.',
    "\n\nPut the letter into \\boxed{A}.",
    "\nIf you cannot answer, say why. The correct answer is one of A, B, C and D.",
)
MARKS = ("{}) {}", "({}) {}", "{}. {}", "{}: {}", "**{})** {}", "- {}) {}", "* **{}.** {}", "> {}) {}", "{}) **{}**")

STATEMENTS = (
    "{label}",
    "({label})",
    "**{label}**",
    "{label}.",
    "{label}) {text}",
    "**{label}) {text}**",
    "The answer is {label}.",
    "The answer is ({label}) {text}.",
    "The correct answer is **{label}) {text}**.",
    "The correct answer is:\n\n**{label}) {text}**",
    "The answer is:\n{label}) {text}",
    "Answer: {label}",
    "**Answer:** {label}",
    "**Answer: {label}**",
    "Answer:\n{label}",
    "## Answer\n\n{label}",
    "Final answer: ({label})",
    "\\boxed{{{label}}}",
    "$\\boxed{{\\text{{{label}}}}}$",
    "$$\\boxed{{\\mathrm{{{label}}}}}$$",
    "\\[\\boxed{{\\textbf{{({label})}}}}\\]",
    "\\(\\boxed{{{label}}}\\)",
    '{{"answer": "{label}"}}',
    '```json\n{{"answer": "{label}"}}\n```',
    "<answer>{label}</answer>",
    "I choose {label}.",
    "Option {label} is the correct one.",
    "({label}) is right.",
    "So the best option is {label}, because the others are not.",
    "The correct option is therefore **{label}**.",
    "The answer is {text}.",
    "The correct answer is **{text}**.",
    "\\boxed{{\\text{{{label}. {text}}}}}",
    "\\boxed{{{label}) {text}}}",
    "$\\boxed{{\\textbf{{({label})}}\\ \\text{{{text}}}}}$",
    "### Final Answer\n\n**{label}) {text}**",
    "> **Answer:** {label}) {text}",
    "**Answer:** **{label}**",
    "Answer: ${label}$",
    "Answer: `{label}`",
    "{label}\n\nExplanation: the others cannot be right.",
    "The correct answer is (**{label}**): {text}",
    "| Answer | {label} |",
    "Hence the answer is $\\mathbf{{{label}}}$.",
    "Antwort: {label}",
    "La r\u00e9ponse est {label}.",
    "\u7b54\u6848\u662f{label}\u3002",
    "[THINK]Is it A? No, the answer is B or C.[/THINK]{label}",
    "<think>The answer is A, or is it B</think>\n\n{label}",
    "It cannot be anything but one. The answer: {label}",
)
AFTER = ("", "\n\nThat is what the textbooks say.", "\n\nThis is the right one.", "\n\nI hope this is the best result.")
BEFORE = (
    "",
    "Let me think about it. What is right here has been measured.\n\n",
    "We cannot see it at once, and I am unable to look it up, but it follows from the law.\n\n",
    "The result of a measurement is a number.\n\n",
    "We look at the right side of the equation, as it is the best place to begin.\n\n",
    "One might think that it is the first one. That is not correct.\n\n",
    "As a result of what we know, one option is left.\n\n",
)
SHOTS = (
    ("Which planet is the largest?", ("Mars", "Jupiter", "Venus", "the one on the right"), 1),
    ("Which gas is the best for balloons?", ("helium", "none is right", "argon", "oxygen"), 0),
    ("What can one not do?", ("fly", "the best answer", "fall", "breathe"), 2),
)
REFUSALS = (
    "I cannot answer this question.",
    "I'm sorry, but I can't help with that.",
    "I don't know.",
    "I am unable to answer.",
)


@dataclass(frozen=True)
class Asked:
    """A question with options, as it was asked and as a model may repeat it."""

    stem: str
    options: Options
    listed: str
    tail: str
    shots: str = ""

    @property
    def text(self) -> str:
        """The prompt."""
        return f"{self.shots}{self.stem}\n\n{self.listed}{self.tail}"


@st.composite
def shots(draw: st.DrawFn) -> str:
    """As a model invents it when it goes on."""
    return shot(draw, "Question:")


@st.composite
def questions(draw: st.DrawFn) -> Asked:
    """One question; options in a drawn order."""
    texts = tuple(draw(st.permutations(draw(st.sampled_from(SETS)))))
    labels = tuple(string.ascii_uppercase[: len(texts)])
    mark, tail = draw(st.sampled_from(MARKS)), draw(st.sampled_from(TAILS))
    before = "".join(f"{shot(draw, 'Question:')}\n\n" for _ in range(draw(st.sampled_from((0, 0, 1, 2)))))
    return Asked(
        draw(st.sampled_from(STEMS)),
        Options(labels, texts),
        listed(labels, texts, mark),
        tail,
        before and f"{before}Question: ",
    )


def listed(labels: tuple[str, ...], texts: tuple[str, ...], mark: str) -> str:
    """Options, one a line."""
    return "\n".join(mark.format(label, text) for label, text in zip(labels, texts, strict=True))


def shot(draw: st.DrawFn, head: str) -> str:
    """A question of somebody else, answered."""
    stem, texts, right = draw(st.sampled_from(SHOTS))
    labels = tuple("ABCD")
    return f"{head} {stem}\n{listed(labels, texts, draw(st.sampled_from(MARKS[:4])))}\nAnswer: {labels[right]}"


@st.composite
def echoes(draw: st.DrawFn, asked: Asked) -> str:
    """What a model repeats before it answers; ends with an empty line, or is empty."""
    relisted = listed(asked.options.labels, asked.options.texts, draw(st.sampled_from(MARKS)))
    head = draw(st.sampled_from(("Question:", "Q:", "### Question\n")))
    kinds = {
        "nothing": "",
        "options": f"{relisted}\n\n",
        "options named": f"The options are:\n{relisted}\n\n",
        "options in one line": "The options are "
        + ", ".join(f"({a}) {b}" for a, b in zip(asked.options.labels, asked.options.texts, strict=True))
        + ".\n\n",
        "question": f"{asked.text}\n\n",
        "question named": f"{head} {asked.text}\n\n",
        "question quoted": "".join(f"> {line}\n" for line in asked.text.splitlines()) + "\n",
        "question in bold": f"**{asked.stem}**\n\n{relisted}\n\n",
        "question in a sentence": f'You ask: "{asked.stem}"\n\n',
        "first sentence": f"You say: {asked.stem.partition('. ')[0]}.\n\n",
        "part of the options": "\n".join(relisted.splitlines()[:2]) + "\n\n",
        "transcript": "\n\n".join([*(shot(draw, head) for _ in range(draw(st.integers(1, 3)))), f"{head} {asked.text}"])
        + "\n\n",
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]


@seed(SEED)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_an_answer_is_read_whatever_stands_around_it(data: st.DataObject) -> None:
    """What is read is the option that is stated, not one that is only repeated.

    Nor is it the answer to a question that the model went on to invent.
    """
    asked = data.draw(questions())
    label, text = data.draw(st.sampled_from(list(zip(asked.options.labels, asked.options.texts, strict=True))))
    statement = data.draw(st.sampled_from(STATEMENTS)).format(label=label, text=text)
    after = data.draw(st.sampled_from(AFTER))
    runs_on = "\n\n" + data.draw(shots()) if data.draw(st.booleans()) else ""
    answer = data.draw(echoes(asked)) + data.draw(st.sampled_from(BEFORE)) + statement + after + runs_on

    found = choose(answer, asked.options, question=asked.text)

    assert found.value == label, (SEED, answer, found)


@seed(SEED)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_what_is_only_repeated_is_no_answer(data: st.DataObject) -> None:
    """It is neither an option nor a refusal.

    Neither "right" in an option nor "cannot" in the question says anything about the answer.
    """
    asked = data.draw(questions())

    found = choose(data.draw(echoes(asked)), asked.options, question=asked.text)

    assert (found.value, found.missing in ("nothing", "empty", "several")) == (None, True), (SEED, found)


@seed(SEED)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_a_refusal_is_one_also_beside_the_question(data: st.DataObject) -> None:
    """It quotes what it refuses, options included."""
    asked = data.draw(questions())
    answer = data.draw(echoes(asked)) + data.draw(st.sampled_from(REFUSALS))

    found = choose(answer, asked.options, question=asked.text)

    assert (found.value, found.missing) == (None, "refused"), (SEED, answer, found)


SUMS = (
    "Janet has 16 eggs. She eats 3 and cannot sell 4 of them. How many are left?",
    "On the left are 7 boxes and on the right 5. How many boxes are there?",
    "The best runner needs 12 minutes. As a result 30 people leave and 20 don't know. How many stay?",
)
NUMBERS = (
    "{n}",
    "The answer is {n}.",
    "The answer is **{n}**.",
    "#### {n}",
    "\\boxed{{{n}}}",
    "$\\boxed{{\\${n}}}$",
    "**Answer:** {n} apples",
    "So there are {n} in total.",
    "So the correct answer is {n} dollars.",
    "Final answer: $${n}$$",
    "<answer>{n}</answer>",
    '{{"answer": {n}}}',
    "Therefore, 2 + 3 = {n}.",
)
STEPS = (
    "",
    "1. Find the answer\n2. Multiply it by 3\n3. Write the result\n\n",
    "Step 1: the result\nStep 2: the sum\n\n",
    "There are 3 on the left and on the right 5.\n",
    "As a result 12 people leave. They cannot come back.\n",
    "| day | eggs |\n|---|---|\n| 1 | 16 |\n| 2 | 13 |\n\n",
    "We can't halve an egg, so we take 2 of them.\n",
)


@seed(SEED)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_a_number_is_read_whatever_stands_around_it(data: st.DataObject) -> None:
    """Not the number of a step, of the question, or of a question that the model went on to invent."""
    question = data.draw(st.sampled_from(SUMS))
    number = data.draw(st.integers(0, 3000))
    head = data.draw(st.sampled_from(("", "Question: ", "Q: ", "> ", "**")))
    transcript = "".join(
        f"Question: He has {n} and loses 1. How many?\nAnswer: {n - 1}\n#### {n - 1}\n\n"
        for n in data.draw(st.lists(st.integers(2, 9), max_size=2))
    )
    echo = data.draw(st.sampled_from(("", f"{transcript}{head}{question}{'**' if head == '**' else ''}\n\n")))
    runs_on = data.draw(
        st.sampled_from(
            ("", "\n\nQuestion: She has 4 and finds 5. How many?\nAnswer: 9", "\n\nQ: What is 6 * 7?\nA: 42")
        )
    )
    answer = echo + data.draw(st.sampled_from(STEPS)) + data.draw(st.sampled_from(NUMBERS)).format(n=number) + runs_on

    found = calculate(answer, question=question)

    assert found.value is not None, (SEED, answer, found)
    assert getattr(found.value, "value", None) == Fraction(number), (SEED, answer, found)
