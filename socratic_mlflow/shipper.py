"""Ships a journal to MLflow in the background. The training never waits for it; it never gives up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from socratic_mlflow.delivery import Delivery
from socratic_mlflow.journal import Journal, Record
from socratic_mlflow.plots import History, NotNowError, draw, draw_apart
from socratic_mlflow.store_errors import AwayError, GoneError

# Seconds between two shipments, so that a request carries many steps and the training's thread is seldom disturbed.
_PAUSE_S = 1.0
# Seconds between two attempts while MLflow is away: at first, and at most.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_RECORDS_A_SHIPMENT = 1000
# Beside a training, after a plot that took a second to draw none is drawn for this many seconds, and at most for the
# second figure: drawing takes a fifth of a core, however often the training evaluates. All else goes on meanwhile.
_REST_AFTER_DRAWING, _LONGEST_REST_S = 4.0, 30.0
# Where more plots wait among the next records, because evaluations are quicker than the drawing, the oldest are left out.
_MOST_PLOTS_WAITING = 100
# Seconds after which a process that is being stopped delivers no more: who stops one waits half a minute, then kills it.
_LONGEST_DRAIN_S = 20.0


class Shipper:
    """Delivers what `journal` holds, beginning where an earlier process stopped. `say` gets the lines a person sees."""

    def __init__(self, journal: Journal, place: str, say: Callable[[str], None]) -> None:
        self._journal, self._place, self._say = journal, place, say
        self._delivery = Delivery(journal, self._refused)
        offset = journal.delivered().get("offset", 0)
        # One that is the end of no record belongs to another journal: all is delivered again, and found to be there.
        self._offset = offset if isinstance(offset, int) and journal.is_end(offset) else 0
        self._inherited = journal.end
        # Up to here all but plots was delivered, ahead of a plot that waits at the offset. Known to this process only: for
        # the next one it is what was sent without being noted.
        self._ahead = 0
        # Whether more was waiting than went with the last shipment.
        self._more = False
        # The time.monotonic() before which no plot is drawn.
        self._rested = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble = ""
        self.is_gone = False
        self._refusals: set[str] = set()

    @property
    def run_id(self) -> str:
        """The run's id; empty as long as it has not been created."""
        return self._delivery.run_id

    @property
    def delivered(self) -> bool:
        """Whether MLflow has everything."""
        return self._offset >= self._journal.end

    def start(self) -> None:
        """Begin to deliver in the background."""
        self._stopping.clear()
        # By another process: drawing in this one would hold up the training's thread.
        self._delivery.draw = self._draw_apart
        # A daemon: a request that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="mlflow-shipper", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float | None = None) -> bool:
        """Stop delivering in the background; waits at most `patience_s` for a request that is under way, and says whether
        that has ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(patience_s)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def drain(self, patience_s: float | None = None) -> bool:
        """Deliver everything now, in this thread; False where MLflow is away at the first attempt that fails, or with
        `patience_s`, where a request hangs for longer, or MLflow was away already."""
        if not self.stop(patience_s) or (patience_s is not None and self.trouble and not self.delivered):
            self.trouble = self.trouble or "no answer in time"
            return False
        # Whoever waits for all of it trains nothing: here, once matplotlib is imported, a plot takes half the time.
        self._delivery.draw = draw
        began = time.monotonic()
        while not self.delivered:
            if patience_s is not None and time.monotonic() - began > _LONGEST_DRAIN_S:
                self.trouble = self.trouble or "there was too much to send in time"
                return False
            if not self._attempt():
                return False
        return True

    def check(self) -> bool:
        """Whether MLflow can be reached and has the run; where not, a person is told as if something had been sent."""
        try:
            self._delivery.check_alive()
        except (AwayError, GoneError) as error:
            self._lost(str(error), gone=isinstance(error, GoneError))
            return False
        return True

    def deliver(self, records: list[Record]) -> bool:
        """Write records that are not in the journal, in this thread; False where MLflow is away."""
        try:
            self._delivery.deliver(records)
        except (AwayError, GoneError):
            return False
        return True

    def _work(self) -> None:
        wait = _FIRST_WAIT_S
        while not self._stopping.is_set():
            if self.delivered or self._attempt():
                wait = _FIRST_WAIT_S
                if not self._more:
                    self._stopping.wait(_PAUSE_S)
            else:
                self._stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT_S)

    def _draw_apart(self, history: History) -> bytes:
        began = time.monotonic()
        picture = draw_apart(history, self._stopping)
        ended = time.monotonic()
        self._rested = ended + min(_REST_AFTER_DRAWING * (ended - began), _LONGEST_REST_S)
        return picture

    def _attempt(self) -> bool:
        """One shipment; False where it was not acknowledged."""
        try:
            waiting = self._waiting()
            if self._is_resting(waiting):
                self._send_ahead()
            else:
                self._send(waiting)
        except (AwayError, GoneError, OSError) as error:
            self._lost(str(error), gone=isinstance(error, GoneError))
            return False
        except NotNowError:
            return False
        if self.trouble:
            self._say(f"note   MLflow at {self._place} is back; what it has missed is being delivered")
            self.trouble = ""
        return True

    def _read(self, start: int) -> list[tuple[Record, int]]:
        return list(itertools.islice(self._journal.records(start), _RECORDS_A_SHIPMENT))

    def _waiting(self) -> list[tuple[Record, int]]:
        """What is to be delivered next, without what was sent ahead."""
        read = self._read(self._offset)
        if not read:
            raise OSError(f"{self._journal.file} has become shorter")
        waiting = [(record, end) for record, end in read if end > self._ahead or _is_plot(record)]
        self._more = len(read) == _RECORDS_A_SHIPMENT
        if not waiting:
            self._advance(read[-1][1])
        return _without_old_plots(waiting)

    def _is_resting(self, waiting: list[tuple[Record, int]]) -> bool:
        """Whether a plot would be next, and none is to be drawn yet; never for whoever waits for all of it."""
        beside = self._thread is threading.current_thread() and not self.trouble
        return beside and bool(waiting) and _is_plot(waiting[0][0]) and time.monotonic() < self._rested

    def _send(self, waiting: list[tuple[Record, int]]) -> None:
        """Deliver the next ones; a plot alone: it may be broken off, and what was sent with it would be uncertain."""
        plot = next((number for number, (record, _) in enumerate(waiting) if _is_plot(record)), len(waiting))
        if shipment := waiting[: plot or 1]:
            self._delivery.deliver([record for record, _ in shipment], inherited=self._offset < self._inherited)
            self._more = self._more or len(shipment) < len(waiting)
            self._advance(shipment[-1][1])

    def _send_ahead(self) -> None:
        """Deliver what stands behind a plot that is not drawn yet."""
        start = max(self._ahead, self._offset)
        read = self._read(start)
        self._more = len(read) == _RECORDS_A_SHIPMENT
        if read:
            self._delivery.deliver(
                [record for record, _ in read if not _is_plot(record)], inherited=start < self._inherited
            )
            self._ahead = read[-1][1]

    def _advance(self, offset: int) -> None:
        self._offset = offset
        self._journal.mark_delivered({"offset": offset, "run_id": self.run_id})

    def _lost(self, why: str, gone: bool) -> None:
        if not self.trouble:
            reason = why if gone else f"cannot be reached ({why})"
            self._say(f"warning: MLflow at {self._place} {reason}; everything is kept in {self._journal.folder}")
        self.trouble = why
        self.is_gone = gone
        if gone:
            # Nothing will change that while this process lives.
            self._stopping.set()

    def _refused(self, what: str, why: str) -> None:
        # One line for each reason: of a metric with an impossible name there is one at every step.
        if why not in self._refusals and len(self._refusals) < 10:
            self._refusals.add(why)
            self._say(f"warning: MLflow does not take {what}: {why}")


def _is_plot(record: Record) -> bool:
    return bool(record["kind"] == "plot")


def _without_old_plots(waiting: list[tuple[Record, int]]) -> list[tuple[Record, int]]:
    plots = [number for number, (record, _) in enumerate(waiting) if _is_plot(record)]
    old = set(plots[:-_MOST_PLOTS_WAITING])
    return [one for number, one in enumerate(waiting) if number not in old]


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return int(time.time() * 1000)
