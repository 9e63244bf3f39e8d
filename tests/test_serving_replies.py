"""The model that answers requests: bounds before anything is computed, seeds, stop texts, batches, parallel callers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch

from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.incoming import ReplyParams
from socratic_mlflow.replying import Replier, UnwantedError
from socratic_mlflow.tokens import ChatFormat

TALKS = [[{"role": "user", "content": question}] for question in tiny.QUESTIONS]
GREEDY = ReplyParams(max_tokens=40)
DRAWN = ReplyParams(max_tokens=12, temperature=1.5, seed=7)
TOLD = {"role": "system", "content": "短く答えよ。"}


@pytest.fixture(scope="module", params=["gemma", "llama", "neox"])
def talker(request):
    return tiny.talker(request.param)


@pytest.fixture(scope="module")
def replier(talker):
    return Replier(*talker, batch_size=4, max_prompt_tokens=100)


class Counted:
    """A model that writes down how many conversations each of its generate calls has."""

    def __init__(self, model, calls):
        self._model, self._calls = model, calls

    def __getattr__(self, name):
        return getattr(self._model, name)

    def generate(self, input_ids, **how):
        self._calls.append(len(input_ids))
        return self._model.generate(input_ids=input_ids, **how)


def ask(replier, talks, params):
    return [answer.text for answer in replier.answer([replier.prompt(talk, params) for talk in talks], params)]


def test_greedy_replies_are_those_of_the_evaluation(talker, replier):
    expected = generate(*talker, TALKS, Sampling(max_new_tokens=40), batch_size=4)
    answers = replier.answer([replier.prompt(talk, GREEDY) for talk in TALKS], GREEDY)
    assert [(answer.text, answer.finish == "length") for answer in answers] == [(r.text, r.cut_off) for r in expected]
    assert answers[0].text == tiny.REPLIES[0]
    assert answers[0].prompt_tokens == len(talker[1].prompt(TALKS[0]))


def test_a_seed_gives_the_same_replies_and_leaves_other_randomness_alone(replier):
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    before = torch.rand(1).tolist()
    first, second = ask(replier, TALKS, DRAWN), ask(replier, TALKS, DRAWN)
    assert before + torch.rand(1).tolist() == expected
    assert first == second
    assert first != ask(replier, TALKS, ReplyParams(max_tokens=12, temperature=1.5, seed=8))


def test_without_a_seed_replies_differ_whatever_the_global_seed(replier):
    params, found = ReplyParams(max_tokens=12, temperature=2.0), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(ask(replier, TALKS, params))
    assert found[0] != found[1]


def test_parallel_callers_get_what_each_gets_alone(replier):
    wanted = [(talk, ReplyParams(max_tokens=12, temperature=1.5, seed=seed)) for seed, talk in enumerate(TALKS)]
    alone = [ask(replier, [talk], params) for talk, params in wanted]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda each: ask(replier, [each[0]], each[1]), wanted)) == alone


@pytest.mark.parametrize("temperature", [1e-300, 1e-5])
def test_a_temperature_of_almost_nothing_is_greedy(replier, temperature):
    assert ask(replier, TALKS[:2], ReplyParams(40, temperature)) == ask(replier, TALKS[:2], GREEDY)


def test_a_stop_text_ends_its_own_reply_alone(replier):
    stopped = ReplyParams(max_tokens=40, stop=("それ", "一つ"))
    full, cut = ask(replier, TALKS[:4], GREEDY), ask(replier, TALKS[:4], stopped)
    assert full == tiny.REPLIES
    assert cut == ["では、君は", "君が見た場面を", "", tiny.REPLIES[3]]


def test_a_reply_is_heard_in_pieces_while_it_grows(replier):
    heard = []
    (answer,) = replier.answer([replier.prompt(TALKS[0], GREEDY)], GREEDY, heard.append)
    assert "".join(heard) == answer.text
    assert len(heard) > 3


@pytest.mark.parametrize("seed", range(6))
def test_what_is_heard_is_the_reply_whatever_is_drawn(talker, replier, seed):
    params, heard = ReplyParams(max_tokens=60, temperature=2.0, seed=seed, stop=("か",) * (seed % 2)), []
    (answer,) = replier.answer([replier.prompt(TALKS[seed], params)], params, heard.append)
    assert "".join(heard) == answer.text
    assert ask(replier, [TALKS[seed]], params) == [answer.text]


def test_a_long_reply_is_not_decoded_again_at_every_token(monkeypatch):
    """Each token is decoded with its neighbours; all of them together once, at the end."""
    chat = ChatFormat(tiny.tokenizer())
    decoded, decode = [], chat.tokenizer.decode
    monkeypatch.setattr(chat.tokenizer, "decode", lambda ids, **how: (decoded.append(len(ids)), decode(ids, **how))[1])
    # Nothing that the model says is the end of its reply.
    monkeypatch.setattr(chat, "stop_ids", [10**6])
    replier, params = Replier(tiny.model(), chat, 4), ReplyParams(max_tokens=200, seed=1, temperature=1, stop=("無い",))
    (answer,) = replier.answer([replier.prompt(TALKS[0], params)], params)
    assert answer.tokens == 200
    assert sum(decoded) < 40 * answer.tokens


def test_a_reply_that_nobody_wants_any_more_ends(replier):
    heard = []
    with pytest.raises(UnwantedError):
        replier.answer([replier.prompt(TALKS[0], GREEDY)], GREEDY, heard.append, lambda: len(heard) == 2)
    assert len(heard) == 2


def test_of_several_batches_none_is_begun_that_nobody_wants(talker):
    asked = []
    model = Counted(talker[0], asked)
    replier, looks = Replier(model, talker[1], batch_size=1), iter([False] * 3)
    prompts = [replier.prompt(talk, GREEDY) for talk in TALKS]
    with pytest.raises(UnwantedError):
        replier.answer(prompts, GREEDY, None, lambda: next(looks, True))
    assert len(asked) == 1


def test_who_waits_in_vain_leaves_before_their_turn(replier):
    gone, reached, may_end = threading.Event(), threading.Event(), threading.Event()

    def hear(piece):
        reached.set()
        may_end.wait(60)

    prompt = replier.prompt(TALKS[0], GREEDY)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(replier.answer, [prompt], GREEDY, hear)
        assert reached.wait(60)
        second = pool.submit(replier.answer, [prompt], GREEDY, None, gone.is_set)
        gone.set()
        try:
            assert isinstance(second.exception(60), UnwantedError)
            assert not first.done()
        finally:
            may_end.set()
        assert first.result(60)[0].text == tiny.REPLIES[0]


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("正義 " * 300, GREEDY, r"the conversation has (at least )?\d+ tokens; this server takes at most 100"),
        ("正義 " * 10**6, GREEDY, r"the conversation has at least \d+ tokens; this server takes at most 100"),
        ("正義", ReplyParams(600), r"the conversation has .*\d+ tokens and max_tokens is 600; together .* at most 512"),
    ],
)
def test_what_is_too_long_is_refused(replier, text, params, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        replier.prompt([{"role": "user", "content": text}], params)


def test_a_system_message_stands_before_the_first_question(replier):
    folded = [{"role": "user", "content": f"{TOLD['content']}\n\n{TALKS[0][0]['content']}"}]
    assert replier.prompt([TOLD, *TALKS[0]], GREEDY) == replier.prompt(folded, GREEDY)


@pytest.mark.parametrize("template", ["{{ raise_exception('no system') }}", ""])
def test_a_system_message_is_refused_where_the_template_refuses_or_drops_it(template):
    words, model = tiny.tokenizer(), tiny.model()
    said = "{% if m.role != 'system' %}{{ m.content | trim }}{% endif %}"
    refuse = f"{{% if messages[0].role == 'system' %}}{template}{{% endif %}}"
    words.chat_template = refuse + words.chat_template.replace("{{ m.content | trim }}", said)
    replier = Replier(model, ChatFormat(words), 4)
    with pytest.raises(ValueError, match=r"^this model's chat template takes no system message; put its text into"):
        replier.prompt([TOLD, *TALKS[0]], GREEDY)


def test_a_template_that_refuses_a_conversation_is_a_sentence():
    words = tiny.tokenizer()
    words.chat_template = (
        "{% for m in messages %}{% if '禁' in m.content %}{{ raise_exception('not\nthis') }}{% endif %}{% endfor %}"
        + words.chat_template
    )
    with pytest.raises(ValueError, match=r"^this model's chat template refuses the conversation: not this$"):
        Replier(tiny.model(), ChatFormat(words), 4).prompt([{"role": "user", "content": "禁"}], GREEDY)
