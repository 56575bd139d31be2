"""What Python's clients do with a running server: `check_python_clients.py URL`. Prints each step; fails on the first wrong one."""

import asyncio
import json
import os
import sys

import huggingface_hub
import openai

ROOT = sys.argv[1]
KEY = os.environ["TSSERVE_KEY"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SHORT = {"max_tokens": 16, "temperature": 0}


def step(name: str, condition: bool, seen: object) -> None:
    print(f"  {'ok' if condition else 'WRONG'}: {name}", flush=True)
    if not condition:
        raise SystemExit(f"saw {seen!r}")


def with_openai() -> str:
    print(f"openai {openai.__version__}")
    client = openai.OpenAI(base_url=f"{ROOT}/v1", api_key=KEY, max_retries=0)
    models = [model.id for model in client.models.list()]
    step("lists one model", len(models) == 1, models)
    model = models[0]
    step("finds it by its id", client.models.retrieve(model).id == model, model)

    answer = client.chat.completions.create(model=model, messages=QUESTION, **SHORT)
    text = answer.choices[0].message.content
    step("chats", "Paris" in text and answer.usage.completion_tokens > 0, answer)

    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True, stream_options=options, **SHORT))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    step("streams the same", streamed == text and chunks[-1].usage.completion_tokens == answer.usage.completion_tokens, chunks)

    with client.chat.completions.stream(model=model, messages=QUESTION, **SHORT) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    step("accumulates a stream", final.choices[0].message.content == text and "content.done" in kinds, kinds)

    logged = client.chat.completions.create(model=model, messages=QUESTION, logprobs=True, top_logprobs=2, **SHORT)
    step("reads log-probabilities", len(logged.choices[0].logprobs.content[0].top_logprobs) == 2, logged)

    text = client.completions.create(model=model, prompt="The capital of France is", **SHORT).choices[0].text
    step("completes", "Paris" in text, text)

    events = list(
        client.responses.create(
            model=model, input="Say hello.", instructions="Be brief.", metadata={"run": "1"}, stream=True, max_output_tokens=16
        )
    )
    streamed = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1].response
    step("streams a response", streamed != "" and last.output_text == streamed and last.metadata == {"run": "1"}, last)
    step("numbers its events", [event.sequence_number for event in events] == list(range(len(events))), events)
    step("gets it again", client.responses.retrieve(last.id).output_text == streamed, last)
    with client.responses.stream(model=model, input="Say hello.", previous_response_id=last.id, max_output_tokens=16) as stream:
        final = stream.until_done().get_final_response()
    step("goes on from it", final.previous_response_id == last.id and final.usage.input_tokens > last.usage.input_tokens, final)

    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, **SHORT)
    step("sees the request's id", bool(raw.headers.get("x-request-id")), raw.headers)

    for name, call, kind in [
        ("an unknown model", lambda: client.chat.completions.create(model="no/model", messages=QUESTION), openai.NotFoundError),
        ("a wrong value", lambda: client.chat.completions.create(model=model, messages=QUESTION, temperature=9), openai.BadRequestError),
        ("an endpoint that is not served", lambda: client.images.generate(model=model, prompt="x"), openai.NotFoundError),
    ]:
        try:
            step(f"{name} is an error", False, call())
        except kind as error:
            step(f"{name} is {kind.__name__}", bool(error.body["message"]), error.body)
    if KEY != "not-needed":
        try:
            openai.OpenAI(base_url=f"{ROOT}/v1", api_key="wrong", max_retries=0).models.list()
            step("a wrong key is an error", False, None)
        except openai.AuthenticationError as error:
            step("a wrong key is AuthenticationError", error.code == "invalid_api_key", error)
    return model


async def with_async_openai(model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{ROOT}/v1", api_key=KEY, max_retries=0) as client:
        ask = client.chat.completions.create
        answers = await asyncio.gather(*(ask(model=model, messages=QUESTION, **SHORT) for _ in range(8)))
    step("eight at once get the same answer", len({a.choices[0].message.content for a in answers}) == 1, answers)


async def with_huggingface_hub(model: str) -> None:
    print(f"huggingface_hub {huggingface_hub.__version__}")
    schema = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "date", "schema": schema, "strict": True}}
    for base in (ROOT, f"{ROOT}/v1"):
        async with huggingface_hub.AsyncInferenceClient(base, token=KEY) as client:
            answer = await client.chat_completion(QUESTION, **SHORT)
            where = base.removeprefix(ROOT) or "the root"
            step(f"chats without naming a model at {where}", "Paris" in answer.choices[0].message.content, answer)
            text = ""
            async for chunk in await client.chat_completion(QUESTION, model=None, stream=True, **SHORT):
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            step("streams the same", text == answer.choices[0].message.content, text)
            answer = await client.chat_completion(QUESTION, response_format=form, max_tokens=64, temperature=0)
            step("is answered in a schema's form", list(json.loads(answer.choices[0].message.content)) == ["year"], answer)
    async with huggingface_hub.AsyncInferenceClient(base_url=f"{ROOT}/v1", api_key=KEY) as client:
        answer = await client.chat.completions.create(model=model, messages=QUESTION, **SHORT)
        step("chats as openai's client does", "Paris" in answer.choices[0].message.content, answer)


asyncio.run(with_async_openai(served := with_openai()))
asyncio.run(with_huggingface_hub(served))
