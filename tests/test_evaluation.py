"""Generation and its scores, on a tiny model that has learned one reply to each of twelve questions."""

from __future__ import annotations

import pytest
import tiny
import torch

from socratic_mlflow import quality
from socratic_mlflow.bootstrap import interval
from socratic_mlflow.evaluation import Reply, Sampling, StyleEvaluator, generate, judge
from socratic_mlflow.style import socratic_style, socratic_tone
from socratic_mlflow.style_profile import Feature, StyleProfile

ANSWERS = [tiny.dialogue(number)[1]["content"] for number in range(len(tiny.QUESTIONS))]
GREEDY = Sampling(max_new_tokens=40)


@pytest.fixture(scope="module")
def talker():
    return tiny.talker()


def ask(questions):
    return [[{"role": "user", "content": question}] for question in questions]


def test_replies_come_in_the_order_of_the_questions(talker):
    model, chat = talker
    replies = generate(model, chat, ask(tiny.QUESTIONS), GREEDY, batch_size=5)
    assert [reply.text for reply in replies] == ANSWERS


def test_a_batch_answers_as_one_by_one(talker):
    model, chat = talker
    # Untrained questions of very different lengths, so that padding matters.
    questions = ["？", "約束と時間のどちらが大切なのでしょうか、教えてください？", *tiny.QUESTIONS, "時間" * 20]
    alone = [generate(model, chat, ask([question]), GREEDY, batch_size=1)[0] for question in questions]
    assert generate(model, chat, ask(questions), GREEDY, batch_size=len(questions)) == alone
    assert generate(model, chat, ask(questions), GREEDY, batch_size=4) == alone


@pytest.fixture
def asked(talker, monkeypatch):
    """What `model.generate` is called with, call by call; it generates as ever."""
    model, calls = talker[0], []
    original = model.generate

    def recorded(**arguments):
        calls.append(arguments)
        return original(**arguments)

    monkeypatch.setattr(model, "generate", recorded)
    return calls


@pytest.mark.parametrize(("batch_size", "calls"), [(1, 14), (4, 4), (7, 2), (13, 2), (14, 1), (99, 1)])
def test_batches_are_of_like_length_the_longest_first_and_padded_on_the_left(talker, asked, batch_size, calls):
    questions = ["？", *tiny.QUESTIONS, "時間" * 20]
    generate(*talker, ask(questions), GREEDY, batch_size)
    prompts = sorted(map(talker[1].prompt, ask(questions)), key=len, reverse=True)
    assert len({len(prompt) for prompt in prompts}) > 3
    assert len(asked) == calls
    for number, call in enumerate(asked):
        batch = prompts[number * batch_size : (number + 1) * batch_size]
        gaps = [len(batch[0]) - len(prompt) for prompt in batch]
        pad = talker[1].tokenizer.pad_token_id
        assert call["input_ids"].tolist() == [[pad] * gap + prompt for gap, prompt in zip(gaps, batch, strict=True)]
        assert call["attention_mask"].tolist() == [
            [0] * gap + [1] * len(prompt) for gap, prompt in zip(gaps, batch, strict=True)
        ]


@pytest.mark.parametrize("limit", [3, 17])
def test_generation_is_told_where_to_stop(talker, asked, limit):
    generate(*talker, ask(tiny.QUESTIONS), Sampling(max_new_tokens=limit), batch_size=6)
    assert [call["max_new_tokens"] for call in asked] == [limit] * 2
    assert [call["eos_token_id"] for call in asked] == [talker[1].stop_ids] * 2
    assert talker[1].tokenizer.convert_tokens_to_ids(tiny.FAMILIES["gemma"].reply_end) in talker[1].stop_ids
    assert {call["pad_token_id"] for call in asked} == {talker[1].tokenizer.pad_token_id}


def test_a_reply_ends_at_its_end_of_turn(talker):
    model, chat = talker
    reply = generate(model, chat, ask(tiny.QUESTIONS[:1]), GREEDY, batch_size=1)[0]
    assert not reply.cut_off
    assert reply.tokens == len(chat.tokenizer(ANSWERS[0], add_special_tokens=False)["input_ids"])


def test_a_reply_is_cut_at_the_limit_and_says_so(talker):
    model, chat = talker
    short = generate(model, chat, ask(tiny.QUESTIONS), Sampling(max_new_tokens=2), batch_size=4)
    assert [(reply.tokens, reply.cut_off) for reply in short] == [(2, True)] * len(tiny.QUESTIONS)
    assert all(answer.startswith(reply.text) for answer, reply in zip(ANSWERS, short, strict=True))


def test_a_conversation_of_several_turns_is_read_whole(talker):
    model, chat = talker
    turns = tiny.dialogue(0) + ask([tiny.QUESTIONS[2]])[0]
    again = generate(model, chat, [turns, turns[2:]], GREEDY, batch_size=2)
    assert len(again) == 2
    assert again[1].text == ANSWERS[2]


def test_sampling_with_temperature_follows_the_seed(talker):
    model, chat = talker
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(generate(model, chat, ask(["？"] * 8), Sampling(12, temperature=5.0), batch_size=8))
    assert drawn[0] == drawn[1]
    assert len({reply.text for reply in drawn[0]}) > 1


def test_no_conversations_no_replies(talker):
    assert generate(*talker, [], GREEDY, batch_size=4) == []


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored(talker, training):
    model, chat = talker
    model.train(training)
    generate(model, chat, ask(tiny.QUESTIONS[:1]), GREEDY, batch_size=1)
    assert model.training is training


def test_training_mode_is_restored_after_an_error(talker):
    model, chat = talker
    model.train()
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(model, chat, ask(tiny.QUESTIONS[:1]), Sampling(max_new_tokens=-1), batch_size=1)
    assert model.training


def test_training_goes_on_after_generation(talker):
    words = tiny.tokenizer()
    model, (_, chat) = tiny.model(vocab_size=len(words)), talker
    inputs = tiny.batch(chat, [tiny.dialogue(0)])
    model.train()
    before = torch.autograd.grad(model(**inputs).loss, list(model.parameters()))
    generate(model, chat, ask(tiny.QUESTIONS[:1]), GREEDY, batch_size=1)
    after = torch.autograd.grad(model(**inputs).loss, list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_evaluator_scores_what_the_model_says(talker):
    model, chat = talker
    evaluator = StyleEvaluator(chat, tiny.QUESTIONS, GREEDY, batch_size=7)
    metrics, rows = evaluator(model)
    styles, tones = [socratic_style(answer) for answer in ANSWERS], [socratic_tone(answer) for answer in ANSWERS]
    assert max(styles) == 1.0
    assert min(styles) == 0.0
    assert len(set(tones)) > 1
    assert metrics == {
        "socratic_style": pytest.approx(sum(styles) / len(styles)),
        "socratic_style_low": interval(styles).low,
        "socratic_style_high": interval(styles).high,
        "socratic_tone": pytest.approx(sum(tones) / len(tones)),
        "socratic_tone_low": interval(tones).low,
        "socratic_tone_high": interval(tones).high,
        "reply_chars": pytest.approx(sum(map(len, ANSWERS)) / len(ANSWERS)),
        # It has learned four replies, three times each.
        "hollow_share": 1.0,
        "identical_share": 1.0,
        "loop_share": 0.0,
        "cut_off_share": 0.0,
        "empty_share": 0.0,
        "distinct_1": quality.distinct(ANSWERS, 1),
        "distinct_2": quality.distinct(ANSWERS, 2),
        "repetition": pytest.approx(sum(map(quality.repetition, ANSWERS)) / len(ANSWERS)),
        "question_overlap": quality.question_overlap(tiny.QUESTIONS, ANSWERS)[0],
        "question_overlap_chance": quality.question_overlap(tiny.QUESTIONS, ANSWERS)[1],
    }
    assert metrics["socratic_style_low"] < metrics["socratic_style"] < metrics["socratic_style_high"]
    assert rows == [
        {
            "question": question,
            "reply": answer,
            "socratic_style": round(style, 4),
            "socratic_tone": round(tone, 4),
            "hollow": "same to another question",
            "cut_off": False,
        }
        for question, answer, style, tone in zip(tiny.QUESTIONS, ANSWERS, styles, tones, strict=True)
    ]


def test_evaluator_scores_under_the_profile_that_it_is_given(talker):
    model, chat = talker
    profile = StyleProfile(
        "doubt",
        style=(Feature("truly", 1.0, contains=("本当",)),),
        tone=(Feature("important", 1.0, contains=("大切",)),),
    )
    metrics, rows = StyleEvaluator(chat, tiny.QUESTIONS, GREEDY, batch_size=12, profile=profile)(model)
    assert [row["socratic_style"] for row in rows] == [float("本当" in answer) for answer in ANSWERS]
    assert [row["socratic_tone"] for row in rows] == [float("大切" in answer) for answer in ANSWERS]
    assert (metrics["socratic_style"], metrics["socratic_tone"]) == (0.25, 0.25)


def test_judge_says_of_each_reply_why_it_is_hollow():
    texts = ["はい、君。", "", "そうですねそうですねそうですね", "はい！君", "それは君が決めることかね？"]
    replies = [Reply(text, 9, text == "") for text in texts]
    metrics, rows = judge(tiny.QUESTIONS[:5], replies)
    again = "same to another question"
    assert [row["hollow"] for row in rows] == [again, "empty", "loop", again, ""]
    assert [row["cut_off"] for row in rows] == [False, True, False, False, False]
    assert metrics["hollow_share"] == pytest.approx(4 / 5)


def test_judge_of_nothing_is_all_zeros():
    metrics, rows = judge([], [])
    assert set(metrics.values()) == {0.0}
    assert rows == []


def test_evaluator_counts_replies_that_are_cut_off_empty_or_loop(talker, monkeypatch):
    model, chat = talker
    texts = iter(["そうですねそうですねそうですね", "", "はい。"])
    monkeypatch.setattr(chat, "text", lambda ids: next(texts))
    metrics, _ = StyleEvaluator(chat, tiny.QUESTIONS[:3], Sampling(max_new_tokens=2), batch_size=3)(model)
    shares = {name: metrics[name] for name in ("loop_share", "empty_share", "cut_off_share")}
    assert shares == {"loop_share": pytest.approx(1 / 3), "empty_share": pytest.approx(1 / 3), "cut_off_share": 1.0}
