"""`socratic_tone`: what each feature finds in natural Japanese, what it leaves alone, and what that does to the score."""

from __future__ import annotations

import pytest

from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import explain, socratic_tone

WEIGHTS = {feature.name: feature.weight for feature in SOCRATIC.tone}


def names(text: str) -> set[str]:
    """The tone features that the reply has."""
    return {found.name for found in explain(text).tone_found}


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    ("feature", "without", "with_it"),
    [
        ("kane", "友とは宝だ。なぜ人は嘘をつくのか。", "友とは宝かね。なぜ人は嘘をつくのか。"),
        ("no_kane", "人は学ぶために生きるかね？", "人は学ぶために生きるのかね？"),
        ("darouka", "友はよいものだ。なぜ人は嘘をつくのか。", "友はよいものだろうか。なぜ人は嘘をつくのか。"),
        ("plain_question", "それは本当だろうか。人は変わる。", "それは本当だろうか。人は変わるのか。"),
        ("kimi", "友人の言葉を聞こう。", "君の言葉を聞こう。"),
        ("opening", "たしかに。それも一つの道だ。", "なるほど。それも一つの道だ。"),
        ("dewa", "まず、水の話をしよう。", "では、水の話をしよう。"),
        ("polite", "なるほど。友は大切だ。", "なるほど。友は大切です。"),
        ("asks_nothing", "ああ、友は来る。そうでしょう。雨です。", "ああ、友は来る。そうです。雨です。"),
        ("markup", "君は友を信じるかね？", "**君は友を信じるかね？**"),
        ("literal_escape", "よし。\n君は友を信じるかね？", "よし。\\n君は友を信じるかね？"),
        ("outer_quotes", "君は友を信じるかね？", "「君は友を信じるかね？」"),
        ("latin_debris", "君は友を信じるかね？", "君は友を信じるかね？ okay"),
    ],
)
def test_each_feature_moves_the_tone_by_its_weight(feature: str, without: str, with_it: str) -> None:
    assert names(with_it) - names(without) == {feature}
    assert names(without) - names(with_it) == set()
    assert socratic_tone(with_it) - socratic_tone(without) == pytest.approx(WEIGHTS[feature], abs=0.002)


def test_every_feature_points_where_the_style_asks() -> None:
    raising = {"kane", "no_kane", "darouka", "plain_question", "kimi", "opening", "dewa"}
    lowering = {"polite", "asks_nothing", "markup", "literal_escape", "outer_quotes", "latin_debris"}
    assert {name for name, weight in WEIGHTS.items() if weight > 0} == raising
    assert {name for name, weight in WEIGHTS.items() if weight < 0} == lowering


def test_the_scale_ends_at_a_polite_statement_and_at_a_reply_with_everything() -> None:
    everything = "なるほど。では、君は友が要ると言うのかね？それは本当だろうか。君はなぜそう思うのかな？"
    assert socratic_tone("友達は大切です。") == pytest.approx(0.0, abs=0.005)
    assert socratic_tone(everything) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("君はどう思うかね？", "あなたはどう思いますか？"),
        ("それは本当だろうか。", "それは本当でしょうか。"),
        ("なるほど。友とは何なのかね？", "わかりました。友とは何なのでしょうか？"),
        ("では、君に聞こう。水は誰のものかね？", "次に、お聞きします。水は誰のものですか？"),
        ("君はそれを誰に聞いたのかな？", "それを誰に聞いたのですか？"),
        ("友とは何かね？", "友とは何ですかね？"),
        ("君は眠いのかね？", "{{「君は眠いのかね？」}}"),
        ("君は眠いのかね？", "君は眠いのだね。"),
    ],
)
def test_the_socratic_wording_scores_well_above_the_other(better: str, worse: str) -> None:
    assert socratic_tone(better) > socratic_tone(worse) + 0.1


POLITE = """
    雨です 雨ですね 雨ですよね 雨ですよねー 雨ですが 雨ですけど 雨ですけれど 雨ですけれども 雨ですし
    雨ですから 雨ですので 雨ですな 雨ですなあ 雨ですわ 雨ですって 雨でした 雨でしたっけ 雨でしたね 雨ですっ
    雨ですー 雨ですぅ 雨です〜 雨ですｗｗ 雨です（笑） 雨です😊 「雨です」 行きます 行きますよ 行きますか
    行きますかね 行きました 行きましたら 行きましょう 行きましょうか 行きません 行きませんが 行きませんでした
    行きませんか 行くでしょう 行くでしょうね 行くでしょうか 見てください 見て下さいね ありがとうございます
    雨ですかね 雨でしょうかね
"""
NOT_POLITE = """
    彼を励ます 人をだます 彼は友をだました 目を覚ます 頭を冷ました 用を済ましたよ 耳を澄ます 弟を悩ますね
    姿をくらました 謎はますます 出すのだ 増すばかりだ 考えてみたまえ 升で量る ですます調で書くな それは違うよ
    静かにしたまえ 雨だけど 行こうか 雨ですむ話だ
"""


@pytest.mark.parametrize("sentence", words(POLITE))
def test_polite_endings(sentence: str) -> None:
    assert "polite" in names(sentence)
    assert not names(sentence) & {"kane", "plain_question"}


@pytest.mark.parametrize("sentence", words(NOT_POLITE))
def test_plain_endings_are_not_polite(sentence: str) -> None:
    assert "polite" not in names(sentence)


KANE = """
    彼は友かね 彼は友かねえ 彼は友かねぇ 彼は友かねー 彼は友かねーー 彼は友かねっ 彼は友かね〜 彼は友かねｗ
    彼は友かね（笑） 彼は友かね😊 「彼は友かね？」 それは確かかね それはいくつかね それはいつかね
"""
PLAIN_QUESTIONS = """
    人は変わるのか どう思うか それは違うのではないか もう一度やってみようか それは正しいか 誰が見たか
    そう呼ぶべきか そういうことか 彼は来るかな 彼は来るかなあ 彼は来るかなー 見たのかい 元気かい それは何だい
    それは誰だ なぜだろう どうだろう、友よ 徳とは何だろうね なぜ泣くのだろう それは確かなのかな
"""
NO_QUESTIONS = """
    水が温かい 肌が柔らかい 目が細かい 夜は静かな 心は穏やかな… 道ははるか そうか 必要なのは静けさだ
    彼はそれを見た 大切な考えだろうね また会おう、いつか 何か かねてからの友だ だろうかと思った 金が要る
    欲しいのはおかね 賛成しかねる 言いかねない
"""
POLITE_QUESTIONS = "どう思いますか 雨でしょうか 行きませんか 雨だったのでしょう 来ましたかね どうですかなあ"
QUESTIONS = {"kane", "no_kane", "darouka", "plain_question"}


@pytest.mark.parametrize("sentence", words(KANE))
def test_questions_in_kane(sentence: str) -> None:
    assert names(sentence) & {*QUESTIONS, "asks_nothing"} == {"kane"}


@pytest.mark.parametrize("sentence", words(PLAIN_QUESTIONS))
def test_plain_questions(sentence: str) -> None:
    assert names(sentence) & {*QUESTIONS, "asks_nothing"} == {"plain_question"}


@pytest.mark.parametrize("sentence", words(NO_QUESTIONS))
def test_what_only_looks_like_a_question_asks_nothing(sentence: str) -> None:
    assert names(sentence) & {*QUESTIONS, "asks_nothing"} == {"asks_nothing"}


@pytest.mark.parametrize("sentence", words(POLITE_QUESTIONS))
def test_a_polite_question_asks_but_earns_nothing(sentence: str) -> None:
    assert names(sentence) == {"polite"}


@pytest.mark.parametrize(
    "rest", words("君は眠い 君、聞け 君，聞け 君､聞け 君たちの番だ 君こそ友だ 君から話せ 君自身の声だ")
)
def test_the_listener_is_addressed(rest: str) -> None:
    assert "kimi" in names(f"今日、{rest}。")


@pytest.mark.parametrize("rest", words("君 君？ 君！ 君だ 君だけだ 君より古い 君って人だ 君しか知らない 君なら分かる"))
def test_the_listener_is_addressed_at_the_end(rest: str) -> None:
    assert "kimi" in names(f"それは{rest}")


@pytest.mark.parametrize("who", words("諸君は 主君は 暴君が 名君の 若君に 君主は 君子は 君臨 君が代は 貴方は"))
def test_nobody_is_addressed(who: str) -> None:
    assert "kimi" not in names(f"{who}遠い昔の話だ。")
    assert "kimi" in names(f"{who}遠い昔の話だ。君の話をしよう。")


@pytest.mark.parametrize(
    ("text", "feature", "found"),
    [
        ("そうだね。雨だ。", "opening", True),
        ("ふむ、雨か。", "opening", True),
        ("『なるほど』、雨だ。", "opening", True),
        ("雨だ。なるほど。", "opening", False),
        ("そうだとすれば雨だ。", "opening", False),
        ("ああいう雨もある。", "opening", False),
        ("雨だ。それでは行こう。", "dewa", True),
        ("なるほど, では行こう。", "dewa", True),
        ("なるほど，では行こう。", "dewa", True),
        ("ではなぜ泣く。", "dewa", True),
        ("雨ではない。", "dewa", False),
        ("雨、ではないな。", "dewa", False),
        ("東京では雨だ。", "dewa", False),
        ("雨だ。<end_of_turn>", "markup", True),
        ("雨だ。</b>", "markup", True),
        ("# 雨", "markup", True),
        ("雨だ。\n> 風だ。", "markup", True),
        ("雨だ。\r  ＃ 風", "markup", True),
        ("雨だ。{", "markup", True),
        ("雨だ。＃１の話だ。", "markup", False),
        ("利益＞正義と言う人がいる。", "markup", False),
        ("＜注＞雨だ。", "markup", False),
        ("Hmm、雨だ。", "latin_debris", True),
        ("AIとSNSの話だ。", "latin_debris", False),
        ("100¥を払う。", "literal_escape", False),
        ("C:\\new", "literal_escape", False),
        ("「雨だ。『風』もだ。」", "outer_quotes", True),
        ("「雨だ」。", "outer_quotes", True),
        ("…「雨だ」\\n", "outer_quotes", True),
        ("「雨」と「風」", "outer_quotes", False),
        ("「雨だ」と言う。", "outer_quotes", False),
        ("「雨だ", "outer_quotes", False),
    ],
)
def test_what_counts_and_what_only_looks_like_it(text: str, feature: str, found: bool) -> None:
    assert (feature in names(text)) == found


@pytest.mark.parametrize("pair", words("「」 『』 “” 〝〟 ‘’ \"\" '' () （） ｢｣ 【】 «» 《》 〈〉 〔〕 []"))
def test_all_quotes_around_a_reply_count_the_same(pair: str) -> None:
    reply = "君は友を信じるのかね？"
    assert socratic_tone(pair[0] + reply + pair[1]) == pytest.approx(socratic_tone(reply) + WEIGHTS["outer_quotes"])


@pytest.mark.parametrize("escape", words(r"\n \\n ¥n ＼ｎ ￥ｎ \r\n \n\n \t"))
def test_a_line_break_that_leaked_ends_a_sentence_and_lowers_the_tone(escape: str) -> None:
    clean, leaked = "友は宝かね\nでは、聞こう", f"友は宝かね{escape}では、聞こう"
    assert names(leaked) - names(clean) == {"literal_escape"}
    assert socratic_tone(leaked) == pytest.approx(socratic_tone(clean) + WEIGHTS["literal_escape"])


@pytest.mark.parametrize("bare", ["かね？", "かねえ？", "のかね？", "かな？", "かね？かね？かね？", "(かね？)"])
@pytest.mark.parametrize("reply", ["友は宝だ。", "友は宝です。", "なるほど。君の話は分かった。"])
def test_a_bare_ending_is_no_question(reply: str, bare: str) -> None:
    assert socratic_tone(reply + bare) == socratic_tone(reply)
    assert socratic_tone(f"{reply}本当{bare}") > socratic_tone(reply)


@pytest.mark.parametrize("reply", ["なるほど。では、君は眠いのかね？", "友は宝だ。", "なるほど。友は宝です。"])
def test_repetition_earns_nothing(reply: str) -> None:
    assert socratic_tone(reply * 5) == socratic_tone(reply) > 0
