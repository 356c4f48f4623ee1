"""A person who mistypes an answer to a Temporal workflow is asked again, except in histories recorded before."""

from temporalio.client import Client
from temporalio.worker import Replayer

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_core.form.numbers import ANY_POINT
from awaithumans_core.reask import LAST
from awaithumans_core.task import AGAIN
from tests.support.people import People
from tests.support.temporal import result, start
from tests.support.workflows import AskForMoney, AskForMoneyAgain, AskForMoneyByTheNextRelease


async def test_amount_with_two_readings_is_asked_for_again(
    client: Client, people: People, question: str, via: str
) -> None:
    """The person is told what to write, and the workflow goes on with the very amount; its history can be replayed."""
    handle = await start(client, AskForMoneyAgain.run, question, via)
    await people.answer(question, {"amount": "1,234"})
    await people.answer(f"{question}{AGAIN}Amount (EUR): {ANY_POINT}. {LAST})", {"amount": "1 234,50"})
    assert await result(handle) == ["1234.50"]
    replayer = Replayer(workflows=[AskForMoneyAgain], plugins=[HumanTasksPlugin()])
    await replayer.replay_workflow(await handle.fetch_history())


async def test_workflow_recorded_without_a_re_ask_replays_without_it(
    client: Client, people: People, question: str, via: str
) -> None:
    """The default re-ask does not apply to a history in which a refused answer has ended the question."""
    handle = await start(client, AskForMoney.run, question, via)
    await people.answer(question, {"amount": "1,234"})
    assert await result(handle) == [f"amount: {ANY_POINT}"]
    replayer = Replayer(workflows=[AskForMoneyByTheNextRelease], plugins=[HumanTasksPlugin()])
    await replayer.replay_workflow(await handle.fetch_history())
