"""What `socratic-mlflow chat` does: load a model, then answer questions and commands until there are no more."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic_mlflow.chat_screen import Pipe, Terminal, nobody_reads, screen
from socratic_mlflow.model_names import full_name, load_full
from socratic_mlflow.options import parse_values
from socratic_mlflow.quiet import quiet
from socratic_mlflow.style import Found, explain, socratic_style, socratic_tone
from socratic_mlflow.style_profile import StyleProfile, read_profile

if TYPE_CHECKING:
    from socratic_mlflow.conversation import Conversation
    from socratic_mlflow.named_model import NamedModel

_LOWEST_TEMPERATURE = 0.01
_HELP = {
    "/reset": "begin a new conversation",
    "/style": "the scores of the last reply, and why",
    "/compare": "the base's reply to the last question, beside the model's",
    "/save [FILE]": "write the conversation as a dialogue of JSONL; never over a file that is there",
    "/help": "this",
    "/quit": "leave (as does Ctrl-D)",
}


def chat(model: str, given: Mapping[str, Any], temperature: float, top_p: float, seed: int | None) -> int:
    """Talk with `model`; returns the exit code. ValueError (one line) where it cannot be loaded."""
    quiet()
    fields, shown = parse_values(given), screen()
    if name := fields.get("evaluation.style_profile"):
        read_profile(name)
    named = _load(full_name(model), fields, shown)
    import torch

    from socratic_mlflow.conversation import Conversation
    from socratic_mlflow.evaluation import Sampling

    # Without this, a GPU would draw the same replies in every conversation.
    torch.manual_seed(seed) if seed is not None else torch.seed()
    # Below it the logits overflow; the replies are the greedy ones long before.
    temperature = temperature if temperature >= _LOWEST_TEMPERATURE else 0.0
    sampling = Sampling(named.config.evaluation.max_new_tokens, temperature, top_p)
    try:
        return Talk(Conversation(named, sampling), named, fields, shown).run()
    except BrokenPipeError:
        nobody_reads()
        return 0


def _load(name: str, fields: Mapping[str, Any], shown: Terminal | Pipe) -> NamedModel:
    import dataclasses

    from socratic_mlflow.named_model import with_evaluation

    if shown.talks:
        shown.note(f"loading {name} ...")
    # What a library says while it loads is no reply.
    with contextlib.redirect_stdout(sys.stderr):
        named = load_full(name, fields)
    return dataclasses.replace(named, config=with_evaluation(named.config, fields))


class Talk:
    """One conversation with one person or program."""

    def __init__(
        self, conversation: Conversation, named: NamedModel, fields: Mapping[str, Any], shown: Terminal | Pipe
    ) -> None:
        from socratic_mlflow.stopping import StopOnInterrupt

        self._conversation, self._named, self._fields, self._screen = conversation, named, fields, shown
        self._interrupt = StopOnInterrupt()
        self._stop: contextlib.AbstractContextManager[Any] = self._interrupt if shown.talks else contextlib.nullcontext()
        self._profile: StyleProfile | None = None
        self._commands = {"/reset": self._reset, "/style": self._style, "/compare": self._compare, "/help": self._help}
        self._lost = 0

    def run(self) -> int:
        """Read and answer until the end; returns the exit code."""
        if self._screen.talks:
            self._screen.note(f"You talk to {self._named.name}. /help lists commands, Ctrl-D leaves.")
        while self._turn():
            pass
        return 1 if self._lost and not self._screen.talks else 0

    def _turn(self) -> bool:
        """Read a line and heed it; False where there is none, or it says to leave."""
        try:
            text = self._screen.line()
            if text is None or text.strip() == "/quit":
                return False
            if text.strip():
                self._heed(text.strip())
        except KeyboardInterrupt:
            if not self._screen.talks:
                raise
            self._screen.note("\n(/quit or Ctrl-D leaves)")
        return True

    def _heed(self, text: str) -> None:
        """One question or command; what is wrong with it is one line, and counts."""
        try:
            if self._is_command(text):
                self._command(text)
            else:
                self._answer(text)
        except ValueError as error:
            self._lost += 1
            self._screen.note(f"socratic-mlflow: {' '.join(str(error).split())}")

    def _is_command(self, text: str) -> bool:
        """A person mistypes one; behind a pipe, what is none to the letter is a question as any other line."""
        if self._screen.talks:
            return text.startswith("/")
        return text in self._commands or text.split(" ")[0] == "/save"

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name == "/save":
            self._save(rest.strip())
        elif name not in self._commands:
            raise ValueError(f"unknown command {name[:40]!r}; /help lists them")
        elif rest.strip():
            raise ValueError(f"{name} takes nothing behind it")
        else:
            self._commands[name]()

    def _answer(self, question: str) -> None:
        if question.startswith("/"):
            self._screen.note(f"({question[:40]!r} is no command, so it is asked)")
        try:
            with self._stop:
                answer = self._conversation.ask(question, self._screen.piece, self._criteria())
        except ValueError:
            if not self._screen.talks:
                # Line N still answers question N.
                self._screen.reply("")
            raise
        self._screen.reply(answer.text)
        self._remark(bool(answer.text))
        if answer.forgotten:
            turns = "turn no longer fits" if answer.forgotten == 1 else f"{answer.forgotten} turns no longer fit"
            self._screen.note(f"(the oldest {turns} into the model's {self._conversation.context} tokens; it forgot them)")

    def _criteria(self) -> Any:
        from transformers import StoppingCriteriaList

        return StoppingCriteriaList([self._interrupt]) if self._screen.talks else None

    def _remark(self, said: bool) -> None:
        if self._interrupt.asked:
            self._screen.note("(stopped)" if said else "(stopped before its first word; the question is forgotten)")
        elif not said:
            self._screen.note("(an empty reply; the question is forgotten)")

    def _reset(self) -> None:
        self._conversation.reset()
        self._screen.note("(a new conversation)")

    def _style(self) -> None:
        if not self._conversation.messages:
            raise ValueError("nothing was said yet")
        self._screen.note(told(self._conversation.messages[-1]["content"], self._scored_by()))

    def _compare(self) -> None:
        self._conversation.check_base()
        name, own, profile = self._named.name, self._conversation.messages[-1]["content"], self._scored_by()
        self._screen.note(f"{name}:\n{own}\nbase:")
        with self._stop:
            text = self._conversation.ask_base(self._screen.piece, self._criteria())
        self._screen.aside(text)
        if self._interrupt.asked:
            self._screen.note("(stopped)")
        for who, reply in ((name, own), ("base", text)):
            style, tone = socratic_style(reply, profile), socratic_tone(reply, profile)
            self._screen.note(f"style {style:.3f}  tone {tone:.3f}  {who}")

    def _save(self, file: str) -> None:
        path = Path(file).expanduser() if file else Path(time.strftime("conversation-%Y%m%d-%H%M%S.jsonl"))
        self._conversation.save(path)
        self._screen.note(f"saved {len(self._conversation.messages)} messages to {path}")

    def _help(self) -> None:
        self._screen.note("\n".join(f"{name:14}{what}" for name, what in _HELP.items()))

    def _scored_by(self) -> StyleProfile:
        from socratic_mlflow.origin import profile_of

        if self._profile is None:
            wanted = self._fields.get("evaluation.style_profile")
            try:
                self._profile = profile_of(self._named, wanted)
            except ValueError as error:
                raise ValueError(f"{error}; start chat with --style_profile to score by another one") from None
        return self._profile


def told(reply: str, profile: StyleProfile) -> str:
    """The scores of `reply` and what they are made of, as lines."""
    found = explain(reply, profile)
    lines = [f"style {found.style:.3f}  tone {found.tone:.3f}  (from 0 to 1, profile {profile.name})"]
    lines += [f"  {sentence.style:.3f}  {sentence.text}{_why(sentence.found)}" for sentence in found.sentences]
    if found.sentences:
        lines.append(f"  tone: {found.tone_base:.3f} base{_why(found.tone_found, ', ')}")
    return "\n".join(lines)


def _why(found: tuple[Found, ...], before: str = "  <- ") -> str:
    parts = [f"{part.weight:+.3f} {part.name} ({part.evidence})" for part in found]
    return before + ", ".join(parts) if parts else ""
