"""Ten questions with replies of every kind: honest ones, and such as a collapsed model gives; test files share them."""

from __future__ import annotations

from socratic_mlflow.evaluation import Reply, judge

HONEST = {
    "友だちに嘘をついてしまいました。": "その嘘で、君は何を守ろうとしたのかね？",
    "お金があれば幸せになれますか？": "では、お金があっても眠れない人は幸せなのだろうか？",
    "勉強は何のためにするのですか？": "君が最後に夢中で何かを学んだのは、いつのことかね？",
    "約束は必ず守るべきですか？": "守れば誰かが傷つく約束でも、守るべきだろうか？",
    "勇気のある人になりたいです。": "なるほど。怖さを知らない人と、怖くても進む人のどちらに勇気があるのかね？",
    "母とけんかをしました。": "それは辛かったね。母親の言葉のうち、どれが一番胸に残ったのかね？",
    "仕事をやめたいです。": "では、君が離れたいのは仕事そのものかね、それとも職場の誰かだろうか？",
    "犬が死んで悲しいです。": "悲しみが深いのは、君の愛が深かったからではないだろうか？",
    "人はなぜ働くのですか？": "報酬がまったくなくても、君が続けたい働き方はあるのかね？",
    "正しいことを言って嫌われました。": "では、正しさについて語るとき、言い方は何も変えないのだろうか？",
}
QUESTIONS, REPLIES = list(HONEST), list(HONEST.values())
ONE_SENTENCE = ["では、君はそう思うのかね？"] * len(QUESTIONS)
NOUNS = ("勇気", "正義", "友情", "幸福", "自由", "知恵", "時間", "約束", "美しさ", "テレビ")
# Style 0.75 and 0.85: above the honest replies.
SWAPPED = [f"では、{noun}とは何かね？" for noun in NOUNS]
LOOPS = [f"君は{noun}を思うのかね？" * 3 for noun in NOUNS]
EMPTY = [""] * len(QUESTIONS)
COLLAPSED = {"one sentence": ONE_SENTENCE, "swapped nouns": SWAPPED, "loops": LOOPS, "empty": EMPTY}
SAME_OPENING = [f"なるほど。{reply}" for reply in REPLIES]
WHOLLY = "100% of the replies are empty, loops, or the same as to other questions"


def as_generated(texts: list[str]) -> list[Reply]:
    """Texts as `evaluation.generate` returns them."""
    return [Reply(text, len(text), False) for text in texts]


def scores(texts: list[str]) -> dict[str, float]:
    """What `texts` score as replies to the questions."""
    return judge(QUESTIONS, as_generated(texts))[0]
