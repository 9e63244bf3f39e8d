"""Delivery over real HTTP, with both kinds of store behind the server, while requests fail."""

from __future__ import annotations

import flaky
import pytest
import servers
import stores
from deliveries import TRAINING, check_whole, deliver, fill, metrics, new_journal, no_refusal  # noqa: F401
from mlflow import MlflowClient

from socratic_mlflow.delivery import Delivery
from socratic_mlflow.journal import Journal
from socratic_mlflow.store_errors import AwayError


@pytest.fixture
def server(store, journal):
    with flaky.serving(store) as server, stores.used(server.uri):
        yield server


BAD_FATES = [flaky.ERROR, flaky.GARBAGE, flaky.NOT_FOUND, flaky.BAD_REQUEST, flaky.DROP, flaky.LOSE]


@pytest.mark.parametrize("fate", BAD_FATES)
def test_whatever_request_fails_everything_arrives_once_in_the_end(server, journal, fate):
    fill(journal)
    clean = len(calls_of_a_clean_delivery(server, journal))
    run_id = stores.only_run().info.run_id
    MlflowClient().delete_run(run_id)
    journal.close()
    again = Journal(journal.folder.with_name("again"))
    again.open()
    again.append(TRAINING | {"id": "another"})
    fill(again)
    failures, delivery = 0, Delivery(again, no_refusal)
    # Each request in turn fails, and it is tried again as the shipper does.
    for number in range(clean + 20):
        left = iter([flaky.PASS] * (number - failures) + [fate])
        server.fate = lambda call, left=left: next(left, flaky.PASS)
        try:
            deliver(again, delivery)
        except AwayError as error:
            assert "\n" not in str(error)
            failures += 1
            delivery = delivery if number % 2 else Delivery(again, no_refusal)
    server.fate = lambda call: flaky.PASS
    assert failures >= clean
    deliver(again, delivery)
    check_whole(stores.only_run().info.run_id)
    again.close()


def calls_of_a_clean_delivery(server, journal):
    before = len(server.calls)
    deliver(journal)
    return server.calls[before:]


def test_a_run_whose_creation_was_never_acknowledged_is_found_again(server, journal):
    fill(journal)
    server.becomes(flaky.LOSE, "runs/create", times=1)
    with pytest.raises(AwayError):
        deliver(journal)
    assert stores.only_run().data.tags["training_id"] == TRAINING["id"]
    _, run_id = deliver(journal)
    assert stores.only_run().info.run_id == run_id
    check_whole(run_id)


def test_a_batch_that_was_carried_out_but_not_acknowledged_is_not_sent_again(server, journal):
    fill(journal)
    delivery = Delivery(journal, no_refusal)
    server.becomes(flaky.LOSE, "log-batch")
    for _ in range(6):
        with pytest.raises(AwayError, match="broke off"):
            deliver(journal, delivery)
    server.becomes(flaky.PASS)
    deliver(journal, delivery)
    check_whole(delivery.run_id)


def test_a_server_that_goes_away_between_two_batches_gets_the_rest_later(server, journal):
    for step in range(1, 2501):
        journal.append(metrics(step))
    delivery = Delivery(journal, no_refusal)
    passed = iter([flaky.PASS] * 1)
    server.fate = lambda call: next(passed, flaky.DROP) if "log-batch" in call else flaky.PASS
    with pytest.raises(AwayError):
        deliver(journal, delivery)
    assert len(stores.steps(delivery.run_id, "train/loss")) == 1000
    server.becomes(flaky.PASS)
    deliver(journal, delivery)
    assert stores.steps(delivery.run_id, "train/loss") == list(range(1, 2501))


def test_nothing_is_read_while_all_is_certain(server, journal):
    delivery = Delivery(journal, no_refusal)
    delivery.deliver([metrics(1)])
    before = len(server.calls)
    for step in range(2, 12):
        delivery.deliver([metrics(step)])
    assert server.calls[before:] == ["POST runs/log-batch"] * 10


def history_reads(calls):
    return [call for call in calls if "get-history" in call]


def test_no_history_is_read_where_nothing_of_it_can_have_arrived(server, journal):
    delivery = Delivery(journal, no_refusal)
    delivery.deliver([metrics(step) for step in range(1, 6)])
    server.becomes(flaky.DROP)
    with pytest.raises(AwayError):
        delivery.deliver([metrics(6)])
    server.becomes(flaky.PASS)
    delivery.deliver([metrics(6)])
    Delivery(journal, no_refusal).deliver([metrics(7)])
    assert history_reads(server.calls) == []
    assert stores.steps(delivery.run_id, "train/loss") == [1, 2, 3, 4, 5, 6, 7]


def test_a_metric_at_an_earlier_step_than_the_last_is_looked_up_and_sent_once(server, journal):
    delivery = Delivery(journal, no_refusal)
    delivery.deliver([metrics(step) for step in (1, 5)])
    for _ in range(2):
        Delivery(journal, no_refusal).deliver([metrics(3), metrics(5), metrics(6)])
    assert len(history_reads(server.calls)) == 2
    assert stores.steps(delivery.run_id, "train/loss") == [1, 3, 5, 6]


def test_a_port_at_which_nothing_answers_is_away(journal, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        stores.used(f"http://ada:hunter22@127.0.0.1:{servers.free_port()}"),
        pytest.raises(AwayError, match=r"^connection refused$"),
    ):
        deliver(journal)
