"""server: with `feedback.response_header` a client learns the id under which its request is booked."""

from harness import Start, get, ok, post


async def test_answers_carry_our_id_if_that_is_asked_for(start: Start) -> None:
    """The id of the record, on each answer of the engine's, once."""
    rig = await start(feedback={"response_header": True})
    rig.engine.answer(ok())
    client = await rig.connect()

    first, second = await client.ask(post("{}", "/v1/completions")), await client.ask(get("/v1/models"))

    told = [first.one("x-inferwatch-request-id"), second.one("x-inferwatch-request-id")]
    await rig.tap.close()
    await rig.tap.close()
    assert [opened.request_id.encode() for opened in rig.tap.opens] == told


async def test_answers_are_as_the_engine_sent_them_otherwise(start: Start) -> None:
    """Nothing is added by default."""
    rig = await start()
    rig.engine.answer(ok())
    reply = await (await rig.connect()).ask(post("{}", "/v1/completions"))
    assert b"inferwatch" not in reply.head.lower()
